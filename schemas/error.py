"""The one shape of every failure under /api."""

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

TYPES = OneOf(["validation_error", "external_api_error"])


class ErrorItemSchema(Schema):
    key = fields.String(metadata={"description": "Field name that failed validation"})
    message = fields.String(metadata={"description": "Error code or message"})
    value = fields.String(metadata={"description": "Value that failed validation"})


class ErrorDataSchema(Schema):
    type = fields.String(validate=TYPES, metadata={"description": "Type of error"})
    errors = fields.List(fields.Nested(ErrorItemSchema))
    details = fields.Raw(metadata={"description": "Additional error details"})


class ErrorSchema(Schema):
    code = fields.Integer(metadata={"description": "HTTP error code"})
    message = fields.String(metadata={"description": "Error message"})
    data = fields.Nested(ErrorDataSchema)
