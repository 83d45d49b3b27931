"""The kinds of field there are."""

from functools import partial
from typing import Any

from marshmallow import fields

CODES: dict[str, Any] = {"required": "required", "null": "required", "invalid": "invalid"}
SHOWN: dict[str, Any] = {"dump_only": True, "required": True}  # in every answer
Time = partial(fields.DateTime, format="%Y-%m-%dT%H:%M:%S.%fZ", **SHOWN)  # RFC 3339, UTC
Output, Count = partial(fields.String, **SHOWN), partial(fields.Integer, **SHOWN)


class Text(fields.String):
    """Any Unicode that both databases can store: no NUL, no lone surrogate."""

    default_error_messages = CODES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, *args, **kwargs)
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
            raise self.make_error("invalid")
        return text


class Whole(fields.Integer):
    """A number without a fraction; JSON's 7.0 is one."""

    default_error_messages = CODES | {"too_large": "out_of_range"}

    def _validated(self, value: Any) -> int:
        whole = isinstance(value, float) and value.is_integer()
        return super()._validated(int(value) if whole else value)


class Flag(fields.Boolean):
    """True or false; not 1, "yes" and what else stands for them elsewhere."""

    default_error_messages = CODES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value
