"""/login/oidc: to the provider and back, by the authorization code flow with PKCE."""

import re
import secrets
from base64 import urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import urlencode

import sqlalchemy as sa
from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import IntegrityError

from auth import current_origin
from extras import public_url
from extras.account_page import set_cookie, set_session_cookie
from extras.oidc.models import Identity, ProviderSession, lock_user
from extras.oidc.provider import SignInFailed, metadata, redeem
from models.audit_event import AuditEvent, network
from models.database import Refused, db, new_id, setting
from models.session import Session
from models.user import User, normalized

FLOW = "latchkey-oidc"  # the cookie of a sign-in that is under way
PATH = "/login/oidc"

bp = Blueprint(
    "oidc",
    __name__,
    template_folder="templates",
    static_folder="static",
    static_url_path="/static/oidc",
)


def redirect_uri() -> str:
    return f"{public_url()}{PATH}/callback"


@bp.get(PATH)
def begin() -> ResponseReturnValue:
    """To the provider; ``?step_up`` has the person prove again who it is."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = urlsafe_b64encode(sha256(verifier.encode()).digest())
    wanted = {
        "response_type": "code",
        "client_id": setting("LATCHKEY_OIDC_CLIENT_ID"),
        "redirect_uri": redirect_uri(),
        "scope": "openid profile",
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge.decode().rstrip("="),
        "code_challenge_method": "S256",
    }
    if "step_up" in request.args:
        wanted |= {"max_age": "0", "prompt": "login"}
    response = go_to(metadata()["authorization_endpoint"], **wanted)
    flow = f"{state}.{nonce}.{verifier}"
    # Lax: the provider's page sends the browser back.
    set_cookie(response, FLOW, flow, path=PATH, samesite="Lax", max_age=600)
    return response


@bp.get(f"{PATH}/callback")
def end() -> ResponseReturnValue:
    """From the provider, to a session of the account page."""
    flow = request.cookies.get(FLOW, "")
    state, nonce, verifier, *_ = f"{flow}..".split(".")
    if not state or request.args.get("state") != state:
        raise SignInFailed("other_state")  # another browser began, or it is over
    issuer = setting("LATCHKEY_OIDC_ISSUER")
    if request.args.get("iss", issuer) != issuer:  # RFC 9207
        raise SignInFailed("other_issuer")
    if "code" not in request.args:
        raise SignInFailed("denied")
    claims = redeem(request.args["code"], verifier, redirect_uri(), nonce)
    user = known_user(claims["sub"]) or new_user(claims)
    session = Session.start(user)
    db.session.flush()
    auth_time = claims.get("auth_time")
    db.session.add(
        ProviderSession(
            digest=session.digest,
            subject=claims["sub"],
            sid=claims.get("sid"),
            auth_time=auth_time and datetime.fromtimestamp(auth_time, UTC),
        )
    )
    AuditEvent.record("signed_in", current_origin(), user_id=user.id, reason="oidc")
    db.session.commit()
    response = go_home()
    set_session_cookie(response, session.token)
    return response


def known_user(subject: str) -> User | None:
    """The user with this identity, whose row is locked. Raises SignInFailed."""
    identity = sa.select(Identity.user_id).filter_by(
        issuer=setting("LATCHKEY_OIDC_ISSUER"), subject=subject
    )
    user = lock_user(User.id == identity.scalar_subquery())
    user_id = db.session.scalar(identity)
    if user_id and not user:
        raise SignInFailed("suspended", user_id)
    return user


def new_user(claims: dict[str, str]) -> User:
    """A user for somebody whom nobody has seen before. Raises SignInFailed."""
    if setting("LATCHKEY_OIDC_SIGN_UP") == "off":
        raise SignInFailed("no_account")
    wanted = claims.get("preferred_username") or claims.get("name", "")
    user = User(id=new_id(), username=new_name(wanted))
    identity = Identity(
        issuer=setting("LATCHKEY_OIDC_ISSUER"),
        subject=claims["sub"],
        user_id=user.id,
    )
    try:
        for row in (user, identity):
            db.session.add(row)
            db.session.flush()
    except IntegrityError:  # a second browser of theirs was faster
        raise SignInFailed("try_again") from None
    AuditEvent.record("user_added", current_origin(), user_id=user.id, reason="oidc")
    return user


def new_name(wanted: str) -> str:
    """A user name that nobody has and that fits the headers of any proxy."""
    name = re.sub("[^a-z0-9._@+-]+", "-", normalized(wanted).lower())
    name = name[:50].strip("._@+-") or "user"
    if User.by_name(name):
        name += f"-{secrets.token_hex(4)}"
    return name


def refuse(error: SignInFailed) -> ResponseReturnValue:
    """Back to the page, which says why; one line in the audit trail.

    From one network only so many as of wrong passwords are written.
    """
    db.session.rollback()
    origin = current_origin()
    near = network(origin.ip)
    event = AuditEvent.record(
        "oidc_refused",
        origin,
        reason=error.reason,
        user_id=error.user_id,
        name_digest=near,
        network=near,
    )
    with suppress(Refused):
        event.refuse_if_too_many()
        db.session.commit()
    if request.method == "POST":
        return {"error": "invalid_request"}, 400
    return go_home(error.reason)


def go_home(reason: str = "") -> Response:
    """To the page, and the flow is over. Nothing of the request is in the address."""
    response = Response(status=303, headers={"Location": f"/#{reason}"})
    response.delete_cookie(FLOW, path=PATH)
    return response


def go_to(url: str, **query: str) -> Response:
    return Response(status=303, headers={"Location": f"{url}?{urlencode(query)}"})


@bp.get(f"{PATH}/end")
def sign_out() -> ResponseReturnValue:
    """To the provider's own sign-out (OpenID Connect RP-Initiated Logout 1.0)."""
    wanted = {
        "client_id": setting("LATCHKEY_OIDC_CLIENT_ID"),
        "post_logout_redirect_uri": f"{public_url()}/",
    }
    return go_to(metadata()["end_session_endpoint"], **wanted)
