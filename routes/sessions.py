"""/api/auth and /api/me: signing in, who am I, signing out."""

from flask import Blueprint, g

from auth import current_origin, interactive_session
from json_api import Answer, load_json, success
from models.audit_event import AuditEvent
from models.database import db
from models.session import Session
from models.user import User
from schemas.requests import LoginSchema
from schemas.resources import SessionSchema, UserSchema

public = Blueprint("login", __name__, url_prefix="/api")
bp = Blueprint("sessions", __name__, url_prefix="/api")
bp.before_request(interactive_session)


@public.post("/auth/login")
def login() -> Answer:
    """Exchange user name and password for a session token."""
    data = load_json(LoginSchema())
    user = User.check_password(**data, origin=current_origin(), rule="bad_credentials")
    session = Session.start(user)
    AuditEvent.record("signed_in", current_origin(), user_id=user.id, reason="password")
    db.session.commit()
    return success("login successful", SessionSchema().dump(session))


@bp.post("/auth/logout")
def logout() -> Answer:
    """End this session, at once."""
    Session.end(Session.digest == g.session.digest)
    db.session.commit()
    return success("logout successful")


@bp.get("/me")
def me() -> Answer:
    """The user of this session."""
    return success("user retrieved successfully", UserSchema().dump(g.user))
