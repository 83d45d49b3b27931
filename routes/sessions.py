"""/api/auth and /api/me: signing in, who am I, signing out."""

from flask import Blueprint, g

from auth import interactive_session, origin, same_origin, set_cookie
from models.base import db
from models.session import Session
from models.user import User
from routes import documented
from schemas import resources as schemas
from schemas.envelope import Answer, answer

public = Blueprint("login", __name__, url_prefix="/api")
bp = Blueprint("sessions", __name__, url_prefix="/api")
bp.before_request(interactive_session)


@public.post("/auth/login")
@documented(
    "Login successful",
    schemas.SessionSchema,
    body=schemas.LoginSchema,
    refuses=("bad_credentials", 403, "throttled"),
)
def login() -> Answer:
    """Sign in. Exchanges user name and password for a session token or, with `cookie`, for a cookie
    that no script can read; only our own page may ask for that."""
    wanted = schemas.load(schemas.LoginSchema())
    browser = wanted.pop("cookie") and same_origin()
    session, token = Session.start(User.log_in(**wanted, origin=origin()))
    db.session.commit()
    shown, kept = ({}, set_cookie(token)) if browser else ({"token": token}, {})
    return *answer("login successful", schemas.SessionSchema().dump(session) | shown), kept


@bp.post("/auth/logout")
@documented("Logout successful")
def logout() -> Answer:
    """Sign out. Ends this session, at once."""
    Session.end(Session.digest == g.session.digest)
    db.session.commit()
    return *answer("logout successful"), set_cookie()


@bp.get("/me")
@documented("User retrieved successfully", schemas.UserSchema)
def me() -> Answer:
    """Show who is signed in. The user of this session."""
    return answer("user retrieved successfully", schemas.UserSchema().dump(g.user))
