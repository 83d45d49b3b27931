"""Every failure of a view becomes one JSON shape.

It goes out through ErrorSchema, so that the answer and its documentation cannot differ.
"""

from typing import Any

from flask import current_app, json, request
from marshmallow import ValidationError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from models.database import Refused
from origin import challenge
from schemas.error import ErrorSchema
from tokens import redact

ErrorAnswer = tuple[Any, int, Any]  # body, status, headers or None
MESSAGES = {401: "invalid token", 403: "insufficient permissions"}
REFUSALS = {  # by rule: status, message, the field it is about
    "bad_credentials": (401, "invalid username or password", None),
    "incorrect_password": (400, "validation failed", "password"),
    "not_found": (404, "api key not found", "id"),
    "max_keys_reached": (409, "active api key limit reached", "limit"),
    "throttled": (429, "too many failed attempts", None),
    "busy": (503, "service unavailable", None),
}
# Errors of SQLite and PostgreSQL (its manual's appendix A) that a retry may get past.
TEMPORARY = (
    "SQLITE_BUSY",
    "08006",  # no connection, or no answer within the client's limit
    "55P03",  # another transaction holds a lock
    "40001",  # another transaction came between
    "40P01",  # a deadlock
    "25006",  # a standby, or a primary that has become one
    "53300",  # too many connections
    "57P0",  # the server stops or starts
)


def handle(error: Exception) -> ErrorAnswer:
    """The answer to whatever a request raised. It tells nothing of an unknown error."""
    if isinstance(error, HTTPException):
        return http_error(error)
    if isinstance(error, ValidationError):
        return invalid(error)
    if isinstance(error, Refused):
        return refused(error)
    path = redact(request.path)
    current_app.logger.error("%s %r failed", request.method, path, exc_info=error)
    database_error = database_code(error)
    if database_error.startswith(TEMPORARY) or isinstance(error, PoolTimeout):
        return refused(Refused("busy", 1))
    # Only with a database that is not in UTF-8: the character does not exist there, or
    # the text is too long in bytes.
    if database_error in ("22P05", "22021", "22001"):
        return invalid(ValidationError({"body": ["invalid"]}))
    return answer(500, "internal server error")


def http_error(error: HTTPException) -> ErrorAnswer:
    """What Flask or ``abort`` refuses: 401, 403, 404, 405, 413, 415 …"""
    status = error.code or 500
    headers = dict(error.get_headers())
    headers.pop("Content-Type")  # of an HTML page
    return answer(status, MESSAGES.get(status, error.name.lower()), headers=headers)


def invalid(error: ValidationError) -> ErrorAnswer:
    """400, and what is wrong with each field."""
    sent: Any = error.data or {}
    items = []
    for field, reasons in error.messages_dict.items():
        value = sent.get(field, "")
        items += [error_item(field, reason, value) for reason in reasons]
    return answer(400, "validation failed", items)


def refused(error: Refused) -> ErrorAnswer:
    """The answer to a rule of the domain."""
    status, message, field = REFUSALS[error.rule]
    items = [error_item(field, error.rule, error.value)] if field else None
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(error.value)  # seconds (RFC 9110, 10.2.3)
    return answer(status, message, items, headers)


def answer(
    status: int,
    message: str,
    items: Any = None,
    headers: Any = None,
) -> ErrorAnswer:
    """The envelope, with the errors of the fields, if any, as ``items``."""
    data = {}
    if items:
        data = {"type": "validation_error", "errors": items}
    if status in (401, 403):  # no other header comes with these
        headers = {"WWW-Authenticate": challenge(request.environ, status)}
    body = {
        "code": status,
        "message": message,
        "data": data,
    }
    return ErrorSchema().dump(body), status, headers


def error_item(field: str, reason: str, value: Any) -> dict[str, str]:
    """One field's error. It echoes what was sent: nothing secret, nested or long."""
    if field in ("password", "new_password", "token") or isinstance(value, dict | list):
        text = ""
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value)
    return {
        "key": redact(field)[:100],
        "message": reason,
        "value": redact(text)[:100],
    }


def database_code(error: Exception) -> str:
    """The name of SQLite's error or PostgreSQL's SQLSTATE; empty for other errors."""
    cause = getattr(error, "orig", error)  # SQLAlchemy wraps the driver's
    code = getattr(cause, "sqlite_errorname", "") or getattr(cause, "sqlstate", "")
    # None, if psycopg has no SQLSTATE: above all when it could not connect.
    return "08006" if code is None else code
