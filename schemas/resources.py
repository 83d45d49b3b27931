"""Users, sessions, keys and audit events; one schema both ways. Error messages are stable codes."""

from functools import partial
from typing import Any

from flask import current_app, request
from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import Length, OneOf, Range, Regexp
from werkzeug.exceptions import BadRequest

EVENTS = ["created", "revoked", "auth_failed", "login_failed"]
EVENTS += ["user_added", "user_suspended", "user_restored", "password_changed"]
CODES: dict[str, Any] = {"required": "required", "null": "required", "invalid": "invalid"}
NOT_BLANK = Regexp(r"(?s).*\S", error="required")

Time = partial(fields.DateTime, format="%Y-%m-%dT%H:%M:%S.%fZ", dump_only=True)  # RFC 3339, UTC
Output = partial(fields.String, dump_only=True)
Whole = partial(fields.Integer, error_messages=CODES | {"too_large": "out_of_range"})


def load(schema: Schema) -> Any:
    """The request's JSON body through ``schema``. Raises ValidationError, or 413 or 415."""
    try:
        body = request.get_json()
    except (BadRequest, RecursionError):
        raise ValidationError("invalid_json", "body") from None
    if not isinstance(body, dict):
        raise ValidationError("invalid", "body")
    return schema.load(body)


def bcrypt_sized(password: str) -> None:
    """bcrypt reads 72 bytes, and bytes are not characters."""
    if not 1 <= len(password.encode()) <= 72:
        raise ValidationError("too_long" if password else "required")


def expiry(days: int) -> None:
    if not 1 <= days <= current_app.config["LATCHKEY_MAX_EXPIRY_DAYS"]:
        raise ValidationError("out_of_range")


class Text(fields.String):
    """Any Unicode that both databases can store: no NUL, no lone surrogate."""

    default_error_messages = CODES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, *args, **kwargs)
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
            raise self.make_error("invalid")
        return text


class Input(Schema):
    error_messages = {"unknown": "unknown_field"}


class LoginSchema(Input):
    username = Text(required=True, validate=[Length(max=100, error="too_long"), NOT_BLANK])
    password = Text(required=True, validate=bcrypt_sized)
    cookie = fields.Boolean(load_default=False, error_messages=CODES)


class NewUserSchema(Input):
    """The name travels in the header X-User-Name: what every proxy passes, and no more."""

    username = Text(validate=Regexp(r"[a-z0-9][a-z0-9._@+-]{0,63}\Z", error="invalid"))
    password = Text(validate=[bcrypt_sized, Length(8, error="too_short")])


class UserSchema(Schema):
    id = Output()
    username = Output()
    created_at = Time()


class SessionSchema(Schema):
    expires_at = Time()
    user = fields.Nested(UserSchema)


class ApiKeySchema(Input):
    id, user_id = Output(), Output()
    name = Text(required=True, validate=[Length(max=100, error="too_long"), NOT_BLANK])
    key_public = Output()
    mode = Text(required=True, validate=OneOf(["read", "write"], error="not_one_of"))
    status = Output()
    created_at, expires_at, last_used_at = Time(), Time(), Time()
    last_used_ip = Output()
    revoked_at = Time()
    expires_in_days = Whole(strict=True, load_only=True, validate=expiry)
    password = Text(required=True, load_only=True, validate=bcrypt_sized)


class AuditEventSchema(Schema):
    id = fields.Integer()
    api_key_id, user_id, event, reason = (Output() for _ in range(4))
    key_name, key_mode, ip, method, path = (Output() for _ in range(5))
    created_at = Time()


class PageQuerySchema(Input):
    page = Whole(load_default=1, validate=Range(1, 1_000_000, error="out_of_range"))
    page_size = Whole(load_default=20, validate=Range(1, 100, error="out_of_range"))


class AuditQuerySchema(PageQuerySchema):
    event = Text(validate=OneOf(EVENTS, error="not_one_of"))
    api_key_id = Text()


class PaginationSchema(Schema):
    page = fields.Integer()
    page_size = fields.Integer(attribute="per_page")
    total_count = fields.Integer(attribute="total")
    total_pages = fields.Integer(attribute="pages")
    has_next, has_prev = fields.Boolean(), fields.Boolean()
    next_page = fields.Integer(attribute="next_num")
    prev_page = fields.Integer(attribute="prev_num")


class ApiKeyPageSchema(Schema):
    api_keys = fields.List(fields.Nested(ApiKeySchema))
    pagination = fields.Nested(PaginationSchema)


class AuditPageSchema(Schema):
    audit = fields.List(fields.Nested(AuditEventSchema))
    pagination = fields.Nested(PaginationSchema)
