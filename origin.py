"""What a request says: a bearer token (RFC 6750), and where it comes from."""

from urllib.parse import quote
from wsgiref.types import WSGIEnvironment

from models.audit_event import Origin
from tokens import redact


def bearer_token(environ: WSGIEnvironment) -> str:
    """What follows ``Bearer`` in any case (2.1); empty for other schemes."""
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""


def challenge(environ: WSGIEnvironment, code: int) -> str:
    """The header WWW-Authenticate of 401 or 403 (3); no error without a token (3.1)."""
    value = 'Bearer realm="latchkey"'
    if code == 403:
        value += ', error="insufficient_scope"'
    elif bearer_token(environ):
        value += ', error="invalid_token"'
    return value


def request_origin(environ: WSGIEnvironment) -> Origin:
    """Address (a unix socket has none), method, and path without any token."""
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    return Origin(
        ip=environ.get("REMOTE_ADDR") or None,
        method=environ["REQUEST_METHOD"][:20],
        path=quote(redact(path))[:200],
    )
