"""The shapes of RFC 6749, 7009, 7662 and 8414, which know no envelope; for the documentation."""

from marshmallow import INCLUDE, Schema, fields

from schemas.fields import SHOWN, Output


class TokenSchema(Schema):
    token = fields.String(required=True)

    class Meta:
        unknown = INCLUDE  # token_type_hint, and what other RFCs may add


class IntrospectionSchema(Schema):
    active = fields.Boolean(**SHOWN)
    scope, client_id, token_type, sub, username, jti = (fields.String() for _ in range(6))
    iat, exp = fields.Integer(), fields.Integer()


class OAuthErrorSchema(Schema):
    error, error_description = Output(), fields.String()


class InvalidClientSchema(Schema):
    error = Output()


class MetadataSchema(Schema):
    issuer, introspection_endpoint, revocation_endpoint = Output(), Output(), Output()
    response_types_supported = fields.List(Output(), **SHOWN)
    grant_types_supported = fields.List(Output(), **SHOWN)
    introspection_endpoint_auth_methods_supported = fields.List(Output(), **SHOWN)
    revocation_endpoint_auth_methods_supported = fields.List(Output(), **SHOWN)
