"""GET /api/me/api-keys/audit: what happened to my keys and my account."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Flask, g
from marshmallow import fields
from marshmallow.validate import OneOf

from auth import interactive_session
from json_api import Answer, load_query, success
from models.audit_event import AuditEvent
from models.database import db
from schemas.described import DateTime, Described, String
from schemas.requests import PageQuerySchema
from schemas.resources import PaginationSchema, ResponseSchema

EVENTS = [
    "created",
    "revoked",
    "auth_failed",
    "signed_in",
    "signed_out",
    "login_failed",
    "oidc_refused",
    "user_added",
    "user_suspended",
    "user_restored",
    "password_changed",
    "user_linked",
    "user_unlinked",
]


class Moment(Described, fields.AwareDateTime):
    """A time by RFC 3339, or a date: its first moment in UTC."""

    def _deserialize(self, *args: Any, **options: Any) -> datetime:
        try:
            return super()._deserialize(*args, **options).astimezone(UTC)
        except OverflowError:  # outside the years 1 to 9999
            raise self.make_error("invalid") from None


class AuditQuerySchema(PageQuerySchema):
    event = String(
        "Only events of this kind", validate=OneOf(EVENTS, error="not_one_of")
    )
    api_key_id = String("Only events of this key")
    since = Moment(
        "Only events at this time or later (RFC 3339; a date starts at 00:00 UTC)",
        default_timezone=UTC,
    )
    until = Moment("Only events before this time", default_timezone=UTC)


class AuditEventSchema(ResponseSchema):
    id = String("Number of the event; later ones have higher numbers")
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
    if "since" in query:
        events = events.where(AuditEvent.created_at >= query.pop("since"))
    if "until" in query:
        events = events.where(AuditEvent.created_at < query.pop("until"))
    newest_first = events.order_by(AuditEvent.id.desc())
    page = db.paginate(newest_first, **query, error_out=False)
    data = {
        "audit": AuditEventSchema(many=True).dump(page.items),
        "pagination": PaginationSchema().dump(page),
    }
    return success("audit events retrieved successfully", data)
