"""What may come in. An error's message is a stable code, which the API documents."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from flask import current_app
from marshmallow import Schema, ValidationError, pre_load
from marshmallow.validate import Length, OneOf, Range, Regexp

from schemas.described import Integer, String
from schemas.resources import MODE, MODES

NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
UNSEEN = (  # white space, controls, fillers, and Unicode's format and ignorable ones
    r"\s\0-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
    r"\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2"
    r"\U000110bd\U000110cd\U00013430-\U0001343f"
    r"\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
visible = Regexp(f"(?s).*[^{UNSEEN}]", error="required")
NAME_RULES = [Length(max=100, error="too_long"), visible]


class RequestSchema(Schema):
    error_messages = {"unknown": "unknown_field"}

    @pre_load
    def prepare(self, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Refuse what PostgreSQL cannot store; a JSON 7.0 becomes 7."""
        prepared = dict(data)  # a MultiDict gives its first values
        for name, value in data.items():
            if NOT_STORABLE.search(str(value)):
                raise ValidationError({name: ["invalid"]})
            if isinstance(value, float) and value.is_integer():
                prepared[name] = int(value)
        return prepared


def fits_bcrypt(password: str) -> None:
    """Raises ``required`` or ``too_long``: 1 to 72 bytes, in NFC or as typed."""
    if not password:
        raise ValidationError("required")
    composed = unicodedata.normalize("NFC", password)
    if min(len(password.encode()), len(composed.encode())) > 72:
        raise ValidationError("too_long")


def expiry_allowed(days: int) -> None:
    """Raises ``out_of_range`` beyond the longest life that the operator allows."""
    if not 1 <= days <= current_app.config["LATCHKEY_MAX_EXPIRY_DAYS"]:
        raise ValidationError("out_of_range")


class LoginSchema(RequestSchema):
    username = String(
        "Name to sign in with",
        required=True,
        validate=NAME_RULES,
    )
    password = String(
        "The user's password, 1 to 72 bytes of UTF-8",
        required=True,
        validate=fits_bcrypt,
    )


class NewKeySchema(RequestSchema):
    name = String(
        "What the key is for; at least one visible character",
        required=True,
        validate=NAME_RULES,
    )
    mode = String(MODE, required=True, validate=OneOf(MODES, error="not_one_of"))
    expires_in_days = Integer(
        "Days until the key stops working",
        strict=True,
        allow_none=True,
        validate=expiry_allowed,
    )
    password = String("The user's password again", required=True, validate=fits_bcrypt)


class PageQuerySchema(RequestSchema):
    page = Integer(
        "Number of the page, from 1",
        load_default=1,
        validate=Range(1, 1_000_000, error="out_of_range"),
    )
    page_size = Integer(
        "How many on a page",
        attribute="per_page",
        load_default=100,
        validate=Range(1, 100, error="out_of_range"),
    )
