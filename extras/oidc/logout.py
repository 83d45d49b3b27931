"""POST /login/oidc/logout: the provider ends sessions (Back-Channel Logout 1.0)."""

from hashlib import sha256
from time import time

import sqlalchemy as sa
from flask import Blueprint, request

from auth import current_origin
from extras.oidc.models import ProviderSession
from extras.oidc.provider import SignInFailed, signed_claims
from json_api import read_body
from models.audit_event import AuditEvent
from models.database import db
from models.session import Session

EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_AGE = 600  # seconds

bp = Blueprint("oidc_logout", __name__)


@bp.post("/login/oidc/logout")
def back_channel_logout() -> str:
    """End the sessions of a ``sid`` or else of a ``sub``. Raises SignInFailed."""
    read_body()
    claims = signed_claims(request.form.get("logout_token", ""))
    old = claims["iat"] < time() - MAX_AGE
    if old or "nonce" in claims or EVENT not in claims["events"]:
        raise SignInFailed("bad_token")
    # The audit trail knows the tokens that were used.
    digest = sha256(claims["jti"].encode()).hexdigest()
    used = sa.select(AuditEvent.id).filter_by(event="signed_out", name_digest=digest)
    if db.session.scalar(used):
        raise SignInFailed("replayed")
    if "sid" in claims:
        theirs = ProviderSession.sid == claims["sid"]
    else:
        theirs = ProviderSession.subject == claims["sub"]
    ended = Session.end(
        Session.digest.in_(sa.select(ProviderSession.digest).where(theirs))
    )
    AuditEvent.record(
        "signed_out",
        current_origin(),
        reason="oidc",
        user_id=ended[0] if ended else None,
        name_digest=digest,
    )
    db.session.commit()
    return ""
