"""JSON in and out: what every view under /api does in the same way."""

from typing import Any

from flask import request
from marshmallow import EXCLUDE, Schema, ValidationError
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)

MAX_BODY = 16 * 1024  # bytes
JSON = dict[str, Any]
Answer = tuple[JSON, int]


def success(message: str, data: JSON | None = None, status: int = 200) -> Answer:
    """The answer of a view: the envelope, and the HTTP status that ``code`` repeats."""
    return {"code": status, "message": message, "data": data or {}}, status


def load_json(schema: Schema) -> JSON:
    """The JSON object in the body. Raises ValidationError, or aborts: 400, 413, 415."""
    read_body()  # get_json() takes the same, cached, body
    try:
        body = request.get_json()
    except (BadRequest, RecursionError):
        raise ValidationError({"body": ["invalid_json"]}) from None
    if not isinstance(body, dict):
        raise ValidationError({"body": ["invalid"]})
    return dict(schema.load(body))


def load_query(schema: Schema) -> JSON:
    """The parameters of the query; unknown ones are ignored. Raises ValidationError."""
    return dict(schema.load(request.args, unknown=EXCLUDE))


def read_body() -> bytes:
    """The whole body, at most MAX_BODY. Raises 400, 413 or 415."""
    if "Content-Encoding" in request.headers:
        raise UnsupportedMediaType
    try:
        body = request.get_data()
    except HTTPException:  # Werkzeug's own 413
        raise
    except Exception:  # gunicorn's, for broken chunks
        raise BadRequest from None
    # Werkzeug cuts a chunked body off at MAX_CONTENT_LENGTH without an error, so app.py
    # allows one byte more than this.
    if len(body) > MAX_BODY:
        raise RequestEntityTooLarge
    return body
