"""Who is asking: the before-request hook, and where a request comes from."""

from typing import Any
from urllib.parse import quote

from flask import Response, abort, after_this_request, current_app, g, request

import tokens
from models.audit_event import Origin
from models.session import Session
from models.verification import api_key


def interactive_session() -> None:
    """Before-request hook: the live session becomes ``g.session``, its user ``g.user``.

    Refuses with 403 a key that is good elsewhere and what another site's page sent, with 401
    anything else (RFC 6750).
    """
    cookie = request.cookies.get("latchkey", "")
    if cookie and "Authorization" in request.headers:
        abort(401)  # two credentials are refused, not resolved
    if cookie and request.method not in ("GET", "HEAD"):
        same_origin()
    token = tokens.parse(cookie or bearer(), current_app.config["LATCHKEY_KEY_PREFIX"] + "s")
    session = Session.find(token) if token else None
    if session is None:
        abort(403 if api_key(bearer(), origin) else 401)
    g.session, g.user = session, session.user


def bearer() -> str:
    """What follows ``Authorization: Bearer`` (RFC 6750, 2.1), in any case, else nothing."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip(" ") if scheme.lower() == "bearer" else ""


def same_origin() -> None:
    """403 for what a page of another origin made the browser send (CSRF)."""
    ours = request.headers.get("Origin") == request.host_url[:-1]  # all that some browsers send
    if request.headers.get("Sec-Fetch-Site", "same-origin" if ours else "") != "same-origin":
        abort(403)


def set_cookie(token: str = "") -> None:
    """Give the browser its session or, without a token, take it away."""
    local = f"{request.host}:".startswith(("localhost:", "127.0.0.1:", "[::1]:"))
    flags: dict[str, Any] = {"path": "/api", "httponly": True, "samesite": "Strict"}
    flags |= {"secure": request.is_secure or not local, "max_age": None if token else 0}

    @after_this_request
    def cookie(response: Response) -> Response:
        response.set_cookie("latchkey", token, **flags)
        return response


def origin() -> Origin:
    """Address, method and path for the audit trail: printable, bounded, without any token."""
    ip = quote(request.remote_addr or "", safe=":")[:45] or None  # a unix socket has none
    return Origin(ip, request.method[:20], quote(tokens.redact(request.path))[:200])
