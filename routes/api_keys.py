"""/api/me/api-keys: my keys, from creation to revocation, and what happened to them."""

from typing import Any

import sqlalchemy as sa
from flask import Blueprint, g, request
from flask_sqlalchemy.pagination import Pagination

from auth import interactive_session, origin
from models.api_key import ApiKey
from models.audit_event import AuditEvent
from models.base import db
from routes import documented
from schemas import resources as schemas
from schemas.envelope import Answer, answer

bp = Blueprint("api_keys", __name__, url_prefix="/api/me/api-keys")
bp.before_request(interactive_session)


@bp.get("")
@documented(
    "API keys retrieved successfully",
    schemas.ApiKeyPageSchema,
    query=schemas.PageQuerySchema,
)
def list_keys() -> Answer:
    """List API keys. The current user's, newest first, revoked and expired ones included."""
    query = schemas.PageQuerySchema(unknown="exclude").load(request.args)
    mine = sa.select(ApiKey).where(ApiKey.user_id == g.user.id)
    found = page(mine.order_by(ApiKey.created_at.desc(), ApiKey.id), **query)
    shown = schemas.ApiKeyPageSchema().dump({"api_keys": found.items, "pagination": found})
    return answer("api keys retrieved successfully", shown)


@bp.post("")
@documented(
    "API key created successfully",
    schemas.CreatedApiKeySchema,
    status=201,
    body=schemas.ApiKeySchema,
    refuses=("incorrect_password", "limit_reached", "throttled"),
)
def create_key() -> Answer:
    """Create an API key. Wants the password again; no other answer ever shows the token."""
    wanted = schemas.load(schemas.ApiKeySchema())
    g.user.step_up(wanted.pop("password"), origin())
    key, token = ApiKey.create(g.user, origin(), **wanted)
    db.session.commit()
    shown = {**schemas.ApiKeySchema().dump(key), "token": token}
    return answer("api key created successfully", shown, 201)


@bp.delete("/<anything:id>")
@documented("API key revoked successfully", refuses=("not_found",))
def revoke_key(id: str) -> Answer:
    """Revoke an API key. Revokes one of the current user's API keys, for ever. Revocation is
    immediate. A user can only revoke their own keys; revoking one again is no error."""
    ApiKey.revoke_own(g.user, id, origin())
    db.session.commit()
    return answer("api key revoked successfully")


@bp.delete("")
@documented("API keys revoked successfully", schemas.RevokedSchema)
def revoke_all_keys() -> Answer:
    """Revoke all API keys. Every active one of the current user, together and at once."""
    revoked = ApiKey.revoke(origin(), ApiKey.active(g.user))
    db.session.commit()
    return answer("api keys revoked successfully", {"revoked": revoked})


@bp.get("/audit")
@documented(
    "Audit events retrieved successfully",
    schemas.AuditPageSchema,
    query=schemas.AuditQuerySchema,
)
def audit() -> Answer:
    """List audit events. What happened to the current user's keys and account, newest first."""
    query = schemas.AuditQuerySchema(unknown="exclude").load(request.args)
    pages = {name: query.pop(name) for name in ("page", "page_size")}
    mine = sa.select(AuditEvent).filter_by(user_id=g.user.id, **query)
    found = page(mine.order_by(AuditEvent.id.desc()), **pages)
    shown = schemas.AuditPageSchema().dump({"audit": found.items, "pagination": found})
    return answer("audit events retrieved successfully", shown)


def page(rows: sa.Select[Any], page: int, page_size: int) -> Pagination:
    return db.paginate(rows, page=page, per_page=page_size, error_out=False)
