"""Every failure of a view becomes one JSON shape, through ErrorSchema."""

from typing import Any

from flask import current_app, json, request
from marshmallow import ValidationError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from models.database import Refused
from origin import challenge
from schemas.error import ErrorSchema
from tokens import redact

ErrorAnswer = tuple[Any, int, Any]  # body, status, headers
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
    code = database_code(error)
    if code.startswith(TEMPORARY) or isinstance(error, PoolTimeout):
        return refused(Refused("busy", 1))
    # A database that is not in UTF-8 lacks a character, or counts bytes: too long.
    if code in ("22P05", "22021", "22001"):
        return invalid(ValidationError({"body": ["invalid"]}))
    return answer(500, "internal server error")


def http_error(error: HTTPException) -> ErrorAnswer:
    """What Flask or ``abort`` refuses: 401, 403, 404, 405, 413, 415 …"""
    code = error.code or 500
    headers = dict(error.get_headers())
    headers.pop("Content-Type")  # of an HTML page
    return answer(
        code,
        MESSAGES.get(code, error.name.lower()),
        headers=headers,
    )


def invalid(error: ValidationError) -> ErrorAnswer:
    """400, and what is wrong with each field."""
    sent: Any = error.data or {}
    items = []
    for key, codes in error.messages_dict.items():
        value = sent.get(key, "")
        items += [error_item(key, code, value) for code in codes]
    return answer(400, "validation failed", items)


def refused(error: Refused) -> ErrorAnswer:
    """The answer to a rule of the domain."""
    status, message, key = REFUSALS[error.rule]
    items = [error_item(key, error.rule, error.value)] if key else None
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(error.value)  # seconds (RFC 9110, 10.2.3)
    return answer(status, message, items, headers)


def answer(
    code: int,
    message: str,
    items: Any = None,
    headers: Any = None,
) -> ErrorAnswer:
    data = {}
    if items:
        data = {"type": "validation_error", "errors": items}
    if code in (401, 403):
        headers = {"WWW-Authenticate": challenge(request.environ, code)}
    body = {
        "code": code,
        "message": message,
        "data": data,
    }
    return ErrorSchema().dump(body), code, headers or {}


def error_item(key: str, code: str, value: Any) -> dict[str, str]:
    """One field's error. It echoes what was sent: nothing secret, nested or long."""
    if key in ("password", "new_password", "token") or isinstance(value, dict | list):
        text = ""
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value)
    return {
        "key": redact(key)[:100],
        "message": code,
        "value": redact(text)[:100],
    }


def database_code(error: Exception) -> str:
    """The name of SQLite's error or PostgreSQL's SQLSTATE; empty for other errors."""
    cause = getattr(error, "orig", error)  # SQLAlchemy wraps the driver's
    code = getattr(cause, "sqlite_errorname", "") or getattr(cause, "sqlstate", "")
    # None, if psycopg has no SQLSTATE: above all when it could not connect.
    return "08006" if code is None else code
