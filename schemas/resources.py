"""Users, sessions, keys and audit events; one schema both ways. Error messages are stable codes."""

import re
from functools import partial
from typing import Any

from flask import current_app
from marshmallow import Schema, ValidationError, fields, pre_load
from marshmallow.validate import Length, OneOf, Range, Regexp

for kind in (fields.Field, fields.String, fields.Integer):
    kind.default_error_messages |= {"required": "required", "null": "required"}
    kind.default_error_messages |= {"invalid": "invalid", "too_large": "out_of_range"}
EVENTS = ["created", "revoked", "auth_failed", "login_failed"]
EVENTS += ["user_added", "user_suspended", "user_restored", "password_changed"]
SPACE = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028-\u202f\u205f\u3000"  # the same in ECMAScript
NOT_BLANK = Regexp(rf"^[^\x00]*[^{SPACE}][^\x00]*$", error="required")
SHOWN: dict[str, Any] = {"dump_only": True, "required": True}  # in every answer
Output, Count = partial(fields.String, **SHOWN), partial(fields.Integer, **SHOWN)
Time = partial(fields.DateTime, format="%Y-%m-%dT%H:%M:%S.%fZ", **SHOWN)  # RFC 3339, UTC


def bcrypt_sized(password: str) -> None:
    """bcrypt reads 72 bytes, and bytes are not characters."""
    if not 1 <= len(password.encode(errors="replace")) <= 72:
        raise ValidationError("too_long" if password else "required")


def expiry(days: int) -> None:
    if not 1 <= days <= current_app.config["LATCHKEY_MAX_EXPIRY_DAYS"]:
        raise ValidationError("out_of_range")


def true_or_false(value: Any) -> None:
    if not isinstance(value, bool):  # 1 is equal to True
        raise ValidationError("invalid")


Password = partial(fields.String, required=True, load_only=True, validate=bcrypt_sized)


class Whole(fields.Integer):
    """A number without a fraction: JSON's 7.0 is one; in a query, plain digits are."""

    def _validated(self, value: Any) -> int:
        if isinstance(value, str) and not re.fullmatch("-?[0-9]{1,9}", value):
            raise self.make_error("invalid")
        whole = isinstance(value, float) and value.is_integer()
        return super()._validated(int(value) if whole else value)


class Input(Schema):
    error_messages = {"unknown": "unknown_field"}

    @pre_load
    def storable(self, data: Any, **kwargs: Any) -> Any:
        """PostgreSQL takes neither NUL nor a lone surrogate."""
        bad = [name for name, text in data.items() if re.search("[\0\ud800-\udfff]", str(text))]
        if bad:
            raise ValidationError({name: ["invalid"] for name in bad})
        return data


class LoginSchema(Input):
    username = fields.String(required=True, validate=[Length(max=100, error="too_long"), NOT_BLANK])
    password = Password()
    cookie = fields.Raw(load_default=False, validate=true_or_false)


class NewUserSchema(Input):
    """The name travels in the header X-User-Name: what every proxy passes, and no more."""

    username = fields.String(validate=Regexp(r"[a-z0-9][a-z0-9._@+-]{0,63}\Z", error="invalid"))
    password = fields.String(validate=[bcrypt_sized, Length(8, error="too_short")])


class UserSchema(Schema):
    id, username, created_at = Output(), Output(), Time()


class SessionSchema(Schema):
    token, expires_at = fields.String(dump_only=True), Time()
    user = fields.Nested(UserSchema, **SHOWN)


class KeySchema(Input):
    id, user_id = Output(), Output()
    name = fields.String(required=True, validate=[Length(max=100, error="too_long"), NOT_BLANK])
    key_public = Output()
    mode = fields.String(required=True, validate=OneOf(["read", "write"], error="not_one_of"))
    status = Output(validate=OneOf(["active", "revoked", "expired"]))
    created_at, expires_at, last_used_at = Time(), Time(), Time(allow_none=True)
    last_used_ip, revoked_at = Output(allow_none=True), Time(allow_none=True)
    expires_in_days = Whole(strict=True, load_only=True, validate=expiry)
    password = Password()


class AuditEventSchema(Schema):
    id, event = Count(), Output(validate=OneOf(EVENTS))
    api_key_id, user_id = Output(allow_none=True), Output(allow_none=True)
    reason, key_name, key_mode, ip = (Output(allow_none=True) for _ in range(4))
    method, path, created_at = Output(), Output(), Time()


class PageQuerySchema(Input):
    page = Whole(load_default=1, validate=Range(1, 1_000_000, error="out_of_range"))
    page_size = Whole(load_default=20, validate=Range(1, 100, error="out_of_range"))


class AuditQuerySchema(PageQuerySchema):
    event = fields.String(validate=OneOf(EVENTS, error="not_one_of"))
    api_key_id = fields.String()


class PaginationSchema(Schema):
    page, page_size = Count(), Count(attribute="per_page")
    total_count, total_pages = Count(attribute="total"), Count(attribute="pages")
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
