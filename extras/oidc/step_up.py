"""Creating a key without a password wants a recent sign-in (RFC 9470)."""

from datetime import timedelta

from flask import abort, g, request
from flask.typing import ResponseReturnValue

from errors import answer, error_item
from extras.oidc.models import ProviderSession, lock_user
from models.database import db, utcnow
from models.user import User

MAX_AGE = 300  # seconds
CHALLENGE = (
    'Bearer realm="latchkey", error="insufficient_user_authentication", '
    f'max_age="{MAX_AGE}"'
)


def recent_sign_in() -> ResponseReturnValue | None:
    """Before-request hook: sets ``g.proven`` and locks the user's row, or answers 401.

    A user who has a password gives it to ``create_key``.
    """
    if request.method != "POST" or g.user.has_password:
        return None
    provider_session = db.session.get(ProviderSession, g.session.digest)
    auth_time = provider_session.auth_time if provider_session else None
    if auth_time and auth_time > utcnow() - timedelta(seconds=MAX_AGE):
        if lock_user(User.id == g.user.id) is None:
            abort(401)  # suspended meanwhile
        g.proven = ["password"]
        return None
    item = error_item("step_up", "max_age", MAX_AGE)
    body, status, _ = answer(401, "sign in again", [item])
    return body, status, {"WWW-Authenticate": CHALLENGE}
