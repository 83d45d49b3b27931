"""/verify: a gateway asks whose key this is; /healthz: a load balancer asks whether we are up."""

from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import Rule

from auth import bearer, origin
from models.base import Refused, db, hung
from models.verification import api_key, find
from routes import contract

bp = Blueprint("verify", __name__)
SCOPES = {"read": "read", "write": "read write"}  # by mode of the key


class Empty(Response):
    default_mimetype = None  # nothing has no type


@bp.record_once
def any_method(state: BlueprintSetupState) -> None:
    """Flask's own decorators want a list of methods; a gateway forwards whatever it is sent."""
    for path in ("/verify", "/verify/<anything:path>"):
        state.app.url_map.add(Rule(path, endpoint="verify.verify"))


@bp.endpoint("verify.verify")
def verify(path: str = "") -> Response:
    """Verify an API key. A gateway asks before it lets a request pass: any method, this path and
    every one below it, nothing cached, a verdict without a body (RFC 6750, 3.1)."""
    key = api_key(bearer(), origin)
    granted = SCOPES[key.mode] if key else ""
    needed = set(" ".join(request.args.getlist("scope")).split()) if request.query_string else set()
    if key and needed <= set(granted.split()):
        who = {"X-User-Id": key.user_id, "X-User-Name": key.username, "X-Key-Id": key.id}
        return Empty(headers={**who, "X-Key-Scopes": granted})
    status, error = (403, "insufficient_scope") if key else (401, "invalid_token")
    challenge = f'Bearer realm="latchkey", error="{error}"'
    return Empty(status=status, headers={"WWW-Authenticate": challenge})


@bp.get("/healthz")
@contract("Ok")
def healthz() -> None:
    """Check health. A load balancer asks whether the database answers within 1.5 seconds."""
    if hung:
        raise Refused("busy", 1)
    try:
        find(db.engines["verify"], "")
        if current_app.config["LATCHKEY_VERIFY_DATABASE_URL"]:  # then that was a standby
            find(db.engines["primary"], "")
    except db.engine.dialect.loaded_dbapi.Error as exc:
        current_app.logger.error("the database does not answer: %r", exc)
        raise Refused("busy", 1) from None
