"""What a request says: its bearer token, and where it comes from."""

from urllib.parse import quote
from wsgiref.types import WSGIEnvironment

from models.audit_event import Origin
from tokens import redact


def bearer_token(environ: WSGIEnvironment) -> str:
    """What follows ``Bearer`` in any case (RFC 6750, 2.1); empty for other schemes."""
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""


def challenge(environ: WSGIEnvironment, code: int) -> str:
    """WWW-Authenticate of 401 or 403; no error without a token (RFC 6750, 3.1)."""
    value = 'Bearer realm="latchkey"'
    if bearer_token(environ):
        error = "insufficient_scope" if code == 403 else "invalid_token"
        value += f', error="{error}"'
    return value


def request_origin(environ: WSGIEnvironment) -> Origin:
    """Address (a unix socket has none), method, and path without any token."""
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    return Origin(
        ip=environ.get("REMOTE_ADDR") or None,
        method=environ["REQUEST_METHOD"][:20],
        path=quote(redact(path))[:200],
    )
