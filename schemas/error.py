"""The one shape of every failure under /api."""

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

from schemas.described import Integer, Nested, String


class ErrorItemSchema(Schema):
    key = String("Field name that failed validation")
    message = String("Error code or message")
    value = String("Value that failed validation")


class ErrorDataSchema(Schema):
    """As docs/api.yaml has it; the second type and ``details`` are never sent."""

    type = String(
        "Type of error", validate=OneOf(["validation_error", "external_api_error"])
    )
    errors = Nested("What is wrong, field by field", ErrorItemSchema, many=True)
    details = fields.Raw(metadata={"description": "Additional error details"})


class ErrorSchema(Schema):
    code = Integer("HTTP error code")
    message = String("Error message")
    data = Nested("What is wrong", ErrorDataSchema)
