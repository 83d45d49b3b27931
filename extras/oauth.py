"""OAuth: introspection (RFC 7662), revocation (RFC 7009), metadata (RFC 8414).

A service asks about a token; whoever finds a token revokes it. No token is issued here.
"""

from typing import Any, NoReturn
from urllib.parse import unquote_plus

from flask import Blueprint, Flask, abort, make_response, request
from flask.typing import ResponseReturnValue

import tokens
from auth import current_origin, good_key
from extras import public_url
from json_api import read_body
from models.api_key import ApiKey
from models.audit_event import AuditEvent
from models.database import db, setting
from models.session import Session
from verify import SCOPES

bp = Blueprint("oauth", __name__)


def register(app: Flask) -> None:
    app.register_blueprint(bp)


@bp.post("/oauth/introspect")
def introspect() -> ResponseReturnValue:
    """Whether a key is good now, and whose (RFC 7662)."""
    if not client_is_known():
        headers = {"WWW-Authenticate": 'Basic realm="latchkey"'}
        return {"error": "invalid_client"}, 401, headers
    key = good_key(needed_token())
    if key is None:
        return {"active": False}
    row = db.session.get_one(ApiKey, key.id)
    return {
        "active": True,
        "scope": SCOPES[row.mode],
        "client_id": row.key_public,
        "token_type": "Bearer",
        "sub": row.user_id,
        "username": key.username,
        "jti": row.id,
        "iat": int(row.created_at.timestamp()),
        "exp": int(row.expires_at.timestamp()),
    }


@bp.post("/oauth/revoke")
def revoke() -> ResponseReturnValue:
    """Revoke the key, or end the session, of this token (RFC 7009).

    Whoever holds the token may do this. An unknown token answers the same.
    """
    reason = "revoked_by_token"
    text = needed_token()
    key_token = tokens.parse(text, setting("LATCHKEY_KEY_PREFIX"))
    session = Session.by_token(text)
    if key_token:
        ApiKey.revoke(
            current_origin(),
            ApiKey.key_public == key_token.public,
            ApiKey.digest == key_token.digest,
            reason=reason,
        )
    elif session:
        # Nobody, if another request was faster.
        for user_id in Session.end(Session.digest == session.digest):
            AuditEvent.record(
                "revoked", current_origin(), reason=reason, user_id=user_id
            )
    db.session.commit()
    return ""


@bp.get("/.well-known/oauth-authorization-server")
def metadata() -> dict[str, Any]:
    """Where the two endpoints are (RFC 8414).

    No token is issued here, so three members that strict clients ask for cannot be
    given honestly: authorization_endpoint and token_endpoint, for there is neither, and
    response_types_supported, for there is none and an empty array is forbidden (3.2).
    For the same reason grant_types_supported is not there to say "none".
    """
    base = public_url()
    return {
        "issuer": base,
        "introspection_endpoint": f"{base}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
        ],
        "revocation_endpoint": f"{base}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
    }


def client_is_known() -> bool:
    """Whether the client is a good key: id its public part, secret the token itself.

    Both come by HTTP Basic, form-urlencoded (RFC 6749, 2.3.1), or in the form.
    """
    name = form_value("client_id")
    secret = form_value("client_secret")
    basic = request.authorization
    if basic and basic.type == "basic":
        if secret:
            bad_request("two ways of client authentication")
        name = unquote_plus(basic.username or "")
        secret = unquote_plus(basic.password or "")
    key = good_key(secret)
    return key is not None and key.key_public == name


def needed_token() -> str:
    """The form's token, without what a file or a shell has left around it."""
    token = form_value("token").strip().strip("\ufeff\"'").strip()
    if not token:
        bad_request("token is needed")
    return token


def form_value(name: str) -> str:
    """A parameter of the form; twice is an error (RFC 6749, 3.2)."""
    read_body()
    values = request.form.getlist(name)
    if len(values) > 1:
        bad_request(f"{name} is given twice")
    return values[0] if values else ""


def bad_request(description: str) -> NoReturn:
    error = {"error": "invalid_request", "error_description": description}
    abort(make_response(error, 400))
