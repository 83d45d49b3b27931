"""The one shape of every answer under /api: code, message, data."""

from typing import Any

from marshmallow import Schema, fields, validate

type_names = ["validation_error", "external_api_error"]
Answer = tuple[dict[str, Any], int] | tuple[dict[str, Any], int, dict[str, str]]


class ErrorItemSchema(Schema):
    key = fields.String(metadata={"description": "Field name that failed validation"})
    message = fields.String(metadata={"description": "Error code or message"})
    value = fields.String(metadata={"description": "Value that failed validation"})


class ErrorDataSchema(Schema):
    type = fields.String(
        validate=validate.OneOf(type_names), metadata={"description": "Type of error"}
    )
    errors = fields.List(fields.Nested(ErrorItemSchema))
    details = fields.Raw(metadata={"description": "Additional error details"})


class ErrorSchema(Schema):
    code = fields.Integer(metadata={"description": "HTTP error code"})
    message = fields.String(metadata={"description": "Error message"})
    data = fields.Nested(ErrorDataSchema)


def answer(message: str, data: dict[str, Any] | None = None, code: int = 200) -> tuple[Any, int]:
    """A success in the envelope; ``data`` is an empty object where there is nothing to say."""
    return {"code": code, "message": message, "data": data or {}}, code
