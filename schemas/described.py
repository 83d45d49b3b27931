"""marshmallow's fields with a description, which the API's document shows.

``String("API key ID")`` is ``fields.String(metadata={"description": "API key ID"})``.
"""

from typing import Any

from marshmallow import fields


class Described(fields.Field[Any]):
    """The messages of its errors are stable codes."""

    def __init__(self, description: str, *args: Any, **options: Any) -> None:
        options["metadata"] = {"description": description}
        options["error_messages"] = {
            "required": "required",
            "null": "required",
            "invalid": "invalid",
        }
        super().__init__(*args, **options)


class String(Described, fields.String):
    pass


class Integer(Described, fields.Integer):
    pass


class Boolean(Described, fields.Boolean):
    pass


class DateTime(Described, fields.DateTime):
    pass


class Nested(Described, fields.Nested):
    pass
