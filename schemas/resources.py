"""Users, sessions, keys and audit events; one schema both ways. Error messages are stable codes."""

from functools import partial

from flask import current_app
from marshmallow import RAISE, Schema, ValidationError, fields
from marshmallow.validate import Length, OneOf, Range, Regexp

from schemas.fields import SHOWN, Count, Flag, Output, Text, Time, Whole

EVENTS = ["created", "revoked", "auth_failed", "login_failed"]
EVENTS += ["user_added", "user_suspended", "user_restored", "password_changed"]
SPACE = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028-\u202f\u205f\u3000"  # the same in ECMAScript
NOT_BLANK = Regexp(rf"^[^\x00]*[^{SPACE}][^\x00]*$", error="required")


def bcrypt_sized(password: str) -> None:
    """bcrypt reads 72 bytes, and bytes are not characters."""
    if not 1 <= len(password.encode()) <= 72:
        raise ValidationError("too_long" if password else "required")


def expiry(days: int) -> None:
    if not 1 <= days <= current_app.config["LATCHKEY_MAX_EXPIRY_DAYS"]:
        raise ValidationError("out_of_range")


BYTES = {"minLength": 1, "maxLength": 72, "format": "password"}
Password = partial(Text, required=True, load_only=True, validate=bcrypt_sized, metadata=BYTES)


class Input(Schema):
    error_messages = {"unknown": "unknown_field"}

    class Meta:
        unknown = RAISE


class LoginSchema(Input):
    username = Text(required=True, validate=[Length(max=100, error="too_long"), NOT_BLANK])
    password = Password()
    cookie = Flag(load_default=False)


class NewUserSchema(Input):
    """The name travels in the header X-User-Name: what every proxy passes, and no more."""

    username = Text(validate=Regexp(r"[a-z0-9][a-z0-9._@+-]{0,63}\Z", error="invalid"))
    password = Text(validate=[bcrypt_sized, Length(8, error="too_short")])


class UserSchema(Schema):
    id = Output()
    username = Output()
    created_at = Time()


class SessionSchema(Schema):
    token = fields.String(dump_only=True)
    expires_at = Time()
    user = fields.Nested(UserSchema, **SHOWN)


class KeySchema(Input):
    id, user_id = Output(), Output()
    name = Text(required=True, validate=[Length(max=100, error="too_long"), NOT_BLANK])
    key_public = Output()
    mode = Text(required=True, validate=OneOf(["read", "write"], error="not_one_of"))
    status = Output(validate=OneOf(["active", "revoked", "expired"]))
    created_at, expires_at, last_used_at = Time(), Time(), Time(allow_none=True)
    last_used_ip = Output(allow_none=True)
    revoked_at = Time(allow_none=True)
    expires_in_days = Whole(strict=True, load_only=True, validate=expiry)
    password = Password()


class AuditEventSchema(Schema):
    id = Count()
    api_key_id, user_id = Output(allow_none=True), Output(allow_none=True)
    event = Output(validate=OneOf(EVENTS))
    reason, key_name, key_mode, ip = (Output(allow_none=True) for _ in range(4))
    method, path = Output(), Output()
    created_at = Time()


class PageQuerySchema(Input):
    page = Whole(load_default=1, validate=Range(1, 1_000_000, error="out_of_range"))
    page_size = Whole(load_default=20, validate=Range(1, 100, error="out_of_range"))


class AuditQuerySchema(PageQuerySchema):
    event = Text(validate=OneOf(EVENTS, error="not_one_of"))
    api_key_id = Text()


class PaginationSchema(Schema):
    page = Count()
    page_size = Count(attribute="per_page")
    total_count = Count(attribute="total")
    total_pages = Count(attribute="pages")
    has_next, has_prev = fields.Boolean(**SHOWN), fields.Boolean(**SHOWN)
    next_page = Count(attribute="next_num", allow_none=True)
    prev_page = Count(attribute="prev_num", allow_none=True)


class KeyPageSchema(Schema):
    api_keys = fields.List(fields.Nested(KeySchema), **SHOWN)
    pagination = fields.Nested(PaginationSchema, **SHOWN)


class AuditPageSchema(Schema):
    audit = fields.List(fields.Nested(AuditEventSchema), **SHOWN)
    pagination = fields.Nested(PaginationSchema, **SHOWN)


NewKeySchema = KeySchema.from_dict({"token": Output()}, name="NewKeySchema")
RevokedSchema = Schema.from_dict({"revoked": Count()}, name="RevokedSchema")
