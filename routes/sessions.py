"""/api/auth and /api/me: signing in, who am I, signing out."""

from typing import Any

from flask import Blueprint, g

from auth import interactive_session, origin, same_origin, set_cookie
from models.base import db
from models.session import Session
from models.user import User
from routes import contract
from schemas.resources import LoginSchema, SessionSchema, UserSchema

public = Blueprint("login", __name__, url_prefix="/api")
bp = Blueprint("sessions", __name__, url_prefix="/api")
bp.before_request(interactive_session)


@public.post("/auth/login")
@contract("Login successful", SessionSchema, LoginSchema, ("bad_credentials", 403, "throttled"))
def login(username: str, password: str, cookie: bool) -> dict[str, Any]:
    """Sign in. Exchanges user name and password for a session token or, with `cookie`, for a cookie
    that no script can read; only our own page may ask for that."""
    if cookie:
        same_origin()
    session = Session.start(User.log_in(username, password, origin()))
    db.session.commit()
    if cookie:
        set_cookie(session.token)
    shown = {} if cookie else {"token": session.token}
    return {"expires_at": session.expires_at, "user": session.user, **shown}


@bp.post("/auth/logout")
@contract("Logout successful")
def logout() -> None:
    """Sign out. Ends this session, at once."""
    Session.end(Session.digest == g.session.digest)
    db.session.commit()
    set_cookie()


@bp.get("/me")
@contract("User retrieved successfully", UserSchema)
def me() -> User:
    """Show who is signed in. The user of this session."""
    return g.user  # type: ignore[no-any-return]
