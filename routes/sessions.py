"""/api/auth and /api/me: signing in, who am I, signing out."""

from flask import Blueprint, g

from auth import interactive_session, origin, same_origin, set_cookie
from models.base import db
from models.session import Session
from models.user import User
from schemas import resources as schemas
from schemas.envelope import Answer, answer

public = Blueprint("login", __name__, url_prefix="/api")
bp = Blueprint("sessions", __name__, url_prefix="/api")
bp.before_request(interactive_session)


@public.post("/auth/login")
def login() -> Answer:
    """Exchange user name and password for a session token, or a cookie that no script can read."""
    wanted = schemas.load(schemas.LoginSchema())
    browser = wanted.pop("cookie") and same_origin()
    session, token = Session.start(User.log_in(**wanted, origin=origin()))
    db.session.commit()
    shown, kept = ({}, set_cookie(token)) if browser else ({"token": token}, {})
    return *answer("login successful", schemas.SessionSchema().dump(session) | shown), kept


@bp.post("/auth/logout")
def logout() -> Answer:
    """End this session, at once."""
    Session.end(Session.digest == g.session.digest)
    db.session.commit()
    return *answer("logout successful"), set_cookie()


@bp.get("/me")
def me() -> Answer:
    """Who I am."""
    return answer("user retrieved successfully", schemas.UserSchema().dump(g.user))
