"""Every failure becomes one JSON shape, through ErrorSchema. No view of /api builds one."""

from typing import Any

from flask import current_app, request
from gunicorn.http.errors import ParseException
from marshmallow import ValidationError
from werkzeug.exceptions import BadRequest, HTTPException

from models.base import Refused
from schemas.error import ErrorSchema
from tokens import redact

Refusal = tuple[dict[str, Any], int, dict[str, str]]  # body, status, headers
MESSAGES = {401: "invalid token", 403: "insufficient permissions"}
CHALLENGES = {  # RFC 6750, section 3
    401: 'Bearer realm="latchkey", error="invalid_token"',
    403: 'Bearer realm="latchkey", error="insufficient_scope", '
    'error_description="an interactive session is needed: no api key, no page of another site"',
}
REFUSALS = {  # rule: status, message, field
    "bad_credentials": (401, "invalid username or password", None),
    "incorrect_password": (400, "validation failed", "password"),
    "not_found": (404, "api key not found", "id"),
    "limit_reached": (409, "active api key limit reached", None),
    "busy": (503, "service unavailable", None),
    "throttled": (429, "too many failed attempts", None),
}


def refusal(exc: Exception) -> Refusal:
    """The answer to whatever a request raised; of what nobody foresaw it says nothing."""
    if isinstance(exc, ParseException):  # broken chunks: its own words quote them, secrets and all
        exc = BadRequest()
    if isinstance(exc, HTTPException):
        code, allow = exc.code or 500, dict(exc.get_headers()).get("Allow")
        return answer(code, MESSAGES.get(code, exc.name.lower()), Allow=allow)
    if isinstance(exc, ValidationError):
        sent = exc.data if isinstance(exc.data, dict) else {}
        found: dict[str, list[str]] = exc.normalized_messages()  # type: ignore[no-untyped-call]
        errors = [item(str(key), code, sent.get(key, "")) for key in found for code in found[key]]
        return answer(400, "validation failed", *errors)
    if isinstance(exc, Refused):
        status, message, field = REFUSALS[exc.rule]
        errors = [item(field, exc.rule, exc.value)] if field else []
        retry = str(exc.value) if status in (429, 503) else None  # seconds (RFC 9110, 10.2.3)
        return answer(status, message, *errors, Retry_After=retry)
    current_app.logger.error("%s %r failed", request.method, redact(request.path), exc_info=exc)
    cause = getattr(exc, "orig", exc)
    name = getattr(cause, "sqlite_errorname", None) or str(getattr(cause, "sqlstate", ""))
    if name.startswith(("SQLITE_BUSY", "55P03")):  # somebody else held the lock for too long
        return refusal(Refused("busy", 1))
    return answer(500, "internal server error")


def answer(code: int, message: str, *errors: Any, **headers: str | None) -> Refusal:
    """The one error answer; a header that is None is left out."""
    data = {"type": "validation_error", "errors": errors} if errors else {}
    headers["WWW-Authenticate"] = CHALLENGES.get(code)
    kept = {name.replace("_", "-"): value for name, value in headers.items() if value}
    return ErrorSchema().dump({"code": code, "message": message, "data": data}), code, kept


def item(key: str, message: str, value: Any) -> dict[str, str]:
    """One field's refusal: echoes what was sent, but nothing secret, nested or long."""
    hidden = key in ("password", "token") or isinstance(value, dict | list)
    text = value if isinstance(value, str) else current_app.json.dumps(value)
    shown = "" if hidden else redact(text)[:100]
    return {"key": redact(key)[:100], "message": message, "value": shown}
