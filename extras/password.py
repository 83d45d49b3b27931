"""POST /api/me/password: change my own password."""

import re

import sqlalchemy as sa
from flask import Blueprint, Flask, g
from marshmallow import ValidationError

from auth import current_origin, interactive_session
from json_api import Answer, load_json, success
from models.audit_event import AuditEvent
from models.database import Refused, db
from models.session import Session
from models.user import User, admitted, normalized, running
from schemas.described import String
from schemas.requests import RequestSchema, fits_bcrypt

CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


def acceptable(password: str) -> None:
    """Raises ``invalid``, ``too_short`` or ``too_long``, as the operator's command."""
    if CONTROL.search(password):
        raise ValidationError("invalid")
    if len(password) < 8:
        raise ValidationError("too_short")
    if len(normalized(password).encode()) > 72:  # bcrypt takes no more
        raise ValidationError("too_long")


class NewPasswordSchema(RequestSchema):
    password = String(
        "The user's current password", required=True, validate=fits_bcrypt
    )
    new_password = String(
        "At least 8 characters, at most 72 bytes of UTF-8, no control characters",
        required=True,
        validate=acceptable,
    )


bp = Blueprint("password", __name__, url_prefix="/api/me/password")
bp.before_request(interactive_session)


def register(app: Flask) -> None:
    app.register_blueprint(bp)


@bp.post("")
def change_password() -> Answer:
    """Change my password. My other sessions end; this one and my keys stay."""
    data = load_json(NewPasswordSchema())
    if not admitted.acquire(blocking=False):
        raise Refused("busy", 1)
    try:
        with running:  # as in User.check_password; bcrypt runs twice here
            replace_password(**data)
    finally:
        admitted.release()
    others = Session.digest != g.session.digest
    Session.end(Session.user_id == g.user.id, others)
    AuditEvent.record("password_changed", current_origin(), user_id=g.user.id)
    db.session.commit()
    return success("password changed successfully")


def replace_password(password: str, new_password: str) -> None:
    """Set a password in place of this one; the caller commits.

    Refused: ``incorrect_password`` or ``throttled``.
    """
    user = User.authenticate(g.user.username, password, current_origin())
    db.session.commit()  # so that nobody waits for a lock while bcrypt runs again
    if user is None:
        raise Refused("incorrect_password")
    changed = User()  # never stored: it hashes the password
    changed.set_password(new_password)
    # A password that an operator has set meanwhile stays.
    write = (
        sa.update(User)
        .where(User.id == user.id, User.password_hash == user.password_hash)
        .values(password_hash=changed.password_hash)
        .returning(User.id)
    )
    if db.session.scalar(write) is None:
        raise Refused("incorrect_password")
