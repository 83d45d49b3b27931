"""The one shape of every failure under /api."""

from marshmallow import Schema, fields
from marshmallow.validate import OneOf


class ErrorItemSchema(Schema):
    key = fields.String()
    message = fields.String()
    value = fields.String()


class ErrorDataSchema(Schema):
    type = fields.String(validate=OneOf(["validation_error", "external_api_error"]))
    errors = fields.List(fields.Nested(ErrorItemSchema))
    details = fields.Raw()


class ErrorSchema(Schema):
    code = fields.Integer()
    message = fields.String()
    data = fields.Nested(ErrorDataSchema)
