"""/api/auth and /api/me: signing in, who am I, signing out."""

from flask import Blueprint, g

from auth import interactive_session, origin
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
    refuses=("bad_credentials", "throttled"),
)
def login() -> Answer:
    """Sign in. Exchanges user name and password for a session token."""
    user = User.log_in(**schemas.load(schemas.LoginSchema()), origin=origin())
    session, token = Session.start(user)
    db.session.commit()
    return answer("login successful", {**schemas.SessionSchema().dump(session), "token": token})


@bp.post("/auth/logout")
@documented("Logout successful")
def logout() -> Answer:
    """Sign out. Ends this session, at once."""
    Session.end(Session.digest == g.session.digest)
    db.session.commit()
    return answer("logout successful")


@bp.get("/me")
@documented("User retrieved successfully", schemas.UserSchema)
def me() -> Answer:
    """Show who is signed in. The user of this session."""
    return answer("user retrieved successfully", schemas.UserSchema().dump(g.user))
