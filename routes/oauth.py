"""/oauth: a service asks about a token (RFC 7662); whoever finds a token kills it (RFC 7009)."""

from typing import NoReturn

from flask import Blueprint, abort, current_app, make_response, request
from flask.typing import ResponseReturnValue

import tokens
from auth import origin
from models.api_key import ApiKey
from models.audit_event import AuditEvent
from models.base import db
from models.session import Session
from models.verification import api_key
from routes import limit_body, public_url
from routes.verify import SCOPES

bp = Blueprint("oauth", __name__)


@bp.post("/oauth/introspect")
def introspect() -> ResponseReturnValue:
    """Introspect an API key. Whether it is good now, and whose (RFC 7662); cache no answer. The
    client is a key too: HTTP Basic, or `client_id` and `client_secret` in the form."""
    if not authenticated():
        return {"error": "invalid_client"}, 401, {"WWW-Authenticate": 'Basic realm="latchkey"'}
    key = api_key(form("token", needed=True), origin)
    row = db.session.get(ApiKey, key.id) if key else None
    if key is None or row is None:
        return {"active": False}
    about = {"scope": SCOPES[key.mode], "client_id": key.key_public, "token_type": "Bearer"}
    whose = {"sub": key.user_id, "username": key.username, "jti": key.id}
    times = {"iat": int(row.created_at.timestamp()), "exp": int(row.expires_at.timestamp())}
    return {"active": True, **about, **whose, **times}


@bp.post("/oauth/revoke")
def revoke() -> ResponseReturnValue:
    """Revoke a token. Kills the key or the session of this token (RFC 7009): for whoever finds one,
    holding it is all the right needed. An unknown token answers the same."""
    text, prefix = form("token", needed=True), current_app.config["LATCHKEY_KEY_PREFIX"]
    if key := tokens.parse(text, prefix):
        ApiKey.revoke(origin(), ApiKey.of(key), reason="revoked_by_token")
    elif session := tokens.parse(text, prefix + "s"):
        for user_id in Session.end(Session.digest == session.digest):
            AuditEvent.record("revoked", origin(), reason="revoked_by_token", user_id=user_id)
    db.session.commit()
    return ""


@bp.get("/.well-known/oauth-authorization-server")
def metadata() -> ResponseReturnValue:
    """Show OAuth metadata. Where the two endpoints are (RFC 8414); no token is issued by OAuth."""
    base, known = public_url(), ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": base,
        "response_types_supported": [],
        "grant_types_supported": [],
        "introspection_endpoint": f"{base}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": known,
        "revocation_endpoint": f"{base}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
    }


def authenticated() -> bool:
    """Whether the caller is a good key: id its public part, secret the token itself."""
    name, secret, basic = form("client_id"), form("client_secret"), request.authorization
    if basic and secret:
        bad_request("two ways of client authentication")
    if basic:
        name, secret = basic.username or "", basic.password or ""
    key = api_key(secret, origin)
    return key is not None and key.key_public == name


def form(name: str, needed: bool = False) -> str:
    """One parameter of the form; twice is an error (RFC 6749, 3.2)."""
    limit_body()
    found = request.form.getlist(name)
    if len(found) > 1 or (needed and not found):
        bad_request(f"{name} is needed once")
    return found[0] if found else ""


def bad_request(why: str) -> NoReturn:
    abort(make_response({"error": "invalid_request", "error_description": why}, 400))
