"""/api/me/api-keys: my keys, from creation to revocation, and what happened to them."""

from typing import Any

import sqlalchemy as sa
from flask import Blueprint, g

from auth import interactive_session, origin
from models.api_key import ApiKey
from models.audit_event import AuditEvent
from models.base import db
from models.user import User
from routes import contract
from schemas import resources as schemas

bp = Blueprint("api_keys", __name__, url_prefix="/api/me/api-keys")
bp.before_request(interactive_session)
CREATION = ("incorrect_password", "limit_reached", "throttled")  # why it may be refused


@bp.get("")
@contract("API keys retrieved successfully", schemas.KeyPageSchema, schemas.PageQuerySchema)
def list_keys(**page: int) -> dict[str, Any]:
    """List API keys. The current user's, newest first, revoked and expired ones included."""
    mine = sa.select(ApiKey).where(ApiKey.user_id == g.user.id)
    return one_page("api_keys", mine.order_by(ApiKey.created_at.desc(), ApiKey.id), **page)


@bp.post("")
@contract("API key created successfully", schemas.NewKeySchema, schemas.KeySchema, CREATION, 201)
def create_key(password: str, **wanted: Any) -> ApiKey:
    """Create an API key. Wants the password again; no other answer ever shows the token."""
    User.prove(g.user.username, password, origin(), "incorrect_password")
    key = ApiKey.create(g.user, origin(), **wanted)
    db.session.commit()
    return key


@bp.delete("/<anything:id>")
@contract("API key revoked successfully", refuses=("not_found",))
def revoke_key(id: str) -> None:
    """Revoke an API key. Revokes one of the current user's API keys, for ever. Revocation is
    immediate. A user can only revoke their own keys; revoking one again is no error."""
    ApiKey.revoke_own(g.user, id, origin())
    db.session.commit()


@bp.delete("")
@contract("API keys revoked successfully", schemas.RevokedSchema)
def revoke_all_keys() -> dict[str, int]:
    """Revoke all API keys. Every active one of the current user, together and at once."""
    revoked = ApiKey.revoke(origin(), ApiKey.active(g.user))
    db.session.commit()
    return {"revoked": revoked}


@bp.get("/audit")
@contract("Audit events retrieved successfully", schemas.AuditPageSchema, schemas.AuditQuerySchema)
def audit(page: int, page_size: int, **only: str) -> dict[str, Any]:
    """List audit events. What happened to the current user's keys and account, newest first."""
    mine = sa.select(AuditEvent).filter_by(user_id=g.user.id, **only)
    return one_page("audit", mine.order_by(AuditEvent.id.desc()), page, page_size)


def one_page(name: str, rows: sa.Select[Any], page: int, page_size: int) -> dict[str, Any]:
    found = db.paginate(rows, page=page, per_page=page_size, error_out=False)
    return {name: found.items, "pagination": found}
