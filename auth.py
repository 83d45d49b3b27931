"""Who is asking: the before-request hook of views that need an interactive session."""

from typing import Any

from flask import abort, current_app, g, request

from models.audit_event import Origin
from models.session import Session
from origin import bearer_token, request_origin


def interactive_session() -> None:
    """Before-request hook: sets ``g.session`` and its user as ``g.user``.

    401 without a live session, 403 for a good API key (RFC 6750, section 3). A token
    source returns the tokens in one part of the request; the account page adds a source
    of its own, which reads the cookie.
    """
    sources = current_app.extensions["token_sources"]
    # The lists that are not empty, one for each source (two cookies are one source).
    credentials = list(filter(None, (source() for source in sources)))
    if len(credentials) > 1:
        abort(401)  # two credentials are refused, not resolved
    for token in credentials[0] if credentials else []:
        session = Session.by_token(token)
        if session:
            g.session = session
            g.user = session.user
            return
    # A good key may not manage keys; this notes a use of it. It comes as Bearer only.
    abort(403 if any(map(good_key, bearer_tokens())) else 401)


def bearer_tokens() -> list[str]:
    """The token source of the core: ``Authorization: Bearer``."""
    token = bearer_token(request.environ)
    return [token] if token else []


def good_key(token: str) -> Any:
    """The row of the API key with this token, or None if it is not good now."""
    return current_app.extensions["verifier"].good_key(token, current_origin)


def current_origin() -> Origin:
    """Where this request comes from, for the audit trail."""
    return request_origin(request.environ)
