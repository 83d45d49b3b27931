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
    found = db.session.get(ProviderSession, g.session.digest)
    signed_in_at = found and found.auth_time
    if signed_in_at and signed_in_at > utcnow() - timedelta(seconds=MAX_AGE):
        lock_user(User.id == g.user.id) or abort(401)
        g.proven = ["password"]
        return None
    items = [error_item("step_up", "max_age", MAX_AGE)]
    body, status, _ = answer(401, "sign in again", items)
    return body, status, {"WWW-Authenticate": CHALLENGE}
