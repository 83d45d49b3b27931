"""What goes out: users, sessions and keys."""

from marshmallow import Schema
from marshmallow.validate import OneOf

from schemas.described import Boolean, DateTime, Integer, Nested, String

RFC3339 = "%Y-%m-%dT%H:%M:%S.%fZ"  # in UTC
MODES = ["read", "write"]
MODE = "What the key may do: `read`, or `write`, which includes reading"
STATUSES = ["active", "revoked", "expired"]


class ResponseSchema(Schema):
    """Every field is in every answer; null stands for what is not known."""

    class Meta:
        datetimeformat = RFC3339


class UserSchema(ResponseSchema):
    id = String("User ID")
    username = String("Name to sign in with")
    has_password = Boolean("Whether a new key takes the password again")
    created_at = DateTime("When the user was added (RFC 3339, UTC)")


class SessionSchema(ResponseSchema):
    token = String("Shown in this answer and never again")
    expires_at = DateTime("When the session ends (RFC 3339, UTC)")
    user = Nested("Who signed in", UserSchema)


class KeySchema(ResponseSchema):
    id = String("API key ID")
    user_id = String("User ID")
    name = String("What the key is for")
    key_public = String("The part of the token that is not secret")
    mode = String(MODE, validate=OneOf(MODES))
    status = String("Whether the key is still accepted", validate=OneOf(STATUSES))
    created_at = DateTime("When the key was created (RFC 3339, UTC)")
    expires_at = DateTime("When the key stops working (RFC 3339, UTC)")
    last_used_at = DateTime(
        "When the key was last used, for whatever scope, to the minute", allow_none=True
    )
    last_used_ip = String("From which address it was last used", allow_none=True)
    revoked_at = DateTime(
        "When the key was revoked; null while it was not", allow_none=True
    )


class CreatedKeySchema(KeySchema):
    token = String("Shown in this answer and never again")


class PaginationSchema(ResponseSchema):
    """Dumps a ``flask_sqlalchemy.pagination.Pagination``."""

    page = Integer("Number of this page, from 1")
    page_size = Integer("How many on a page", attribute="per_page")
    total_count = Integer("How many in all", attribute="total")
    total_pages = Integer("How many pages", attribute="pages")
    has_next = Boolean("Whether a page follows")
    has_prev = Boolean("Whether a page precedes")
    next_page = Integer(
        "Number of the page that follows; null on the last",
        allow_none=True,
        attribute="next_num",
    )
    prev_page = Integer(
        "Number of the page that precedes; null on the first",
        allow_none=True,
        attribute="prev_num",
    )
