"""GET /api/me/api-keys/audit: what happened to my keys and my account."""

import sqlalchemy as sa
from flask import Blueprint, Flask, g
from marshmallow.validate import OneOf

from auth import interactive_session
from json_api import Answer, load_query, success
from models.audit_event import AuditEvent
from models.database import db
from schemas.described import DateTime, Integer, String
from schemas.requests import PageQuerySchema
from schemas.resources import PaginationSchema, ResponseSchema

EVENTS = [
    "created",
    "revoked",
    "auth_failed",
    "signed_in",
    "login_failed",
    "user_added",
    "user_suspended",
    "user_restored",
    "password_changed",
]


class AuditQuerySchema(PageQuerySchema):
    event = String(
        "Only events of this kind", validate=OneOf(EVENTS, error="not_one_of")
    )
    api_key_id = String("Only events of this key")


class AuditEventSchema(ResponseSchema):
    id = Integer("Number of the event; later ones have higher numbers")
    event = String("What happened", validate=OneOf(EVENTS))
    api_key_id = String("API key ID", allow_none=True)
    user_id = String("Whose key or account it is; null if unknown", allow_none=True)
    reason = String(
        "Why a key or a password was refused, "
        "or how a key was created or revoked: `operator`, `revoked_by_token`",
        allow_none=True,
    )
    key_name = String("Name of the key at that time", allow_none=True)
    key_mode = String("Mode of the key", allow_none=True)
    ip = String("From which address", allow_none=True)
    method = String("HTTP method of the request")
    path = String("Path of the request")
    created_at = DateTime("When it happened (RFC 3339, UTC)")


bp = Blueprint("audit_trail", __name__, url_prefix="/api/me/api-keys/audit")
bp.before_request(interactive_session)


def register(app: Flask) -> None:
    app.register_blueprint(bp)


@bp.get("")
def list_audit_events() -> Answer:
    """My events, newest first."""
    query = load_query(AuditQuerySchema())
    events = sa.select(AuditEvent).filter_by(user_id=g.user.id)
    if "event" in query:
        events = events.filter_by(event=query.pop("event"))
    if "api_key_id" in query:
        events = events.filter_by(api_key_id=query.pop("api_key_id").lower())
    newest_first = events.order_by(AuditEvent.id.desc())
    page = db.paginate(newest_first, **query, error_out=False)
    data = {
        "audit": AuditEventSchema(many=True).dump(page.items),
        "pagination": PaginationSchema().dump(page),
    }
    return success("audit events retrieved successfully", data)
