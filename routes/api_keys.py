"""/api/me/api-keys: my keys, from creation to revocation."""

from flask import Blueprint, g
from werkzeug.routing import BaseConverter

from auth import current_origin, interactive_session
from json_api import Answer, load_json, load_query, success
from models.api_key import ApiKey
from models.database import Refused, db, setting
from models.user import User
from schemas.requests import NewKeySchema, PageQuerySchema
from schemas.resources import CreatedKeySchema, KeySchema, PaginationSchema


class KeyIdConverter(BaseConverter):
    """Any text, so that every unknown id gets the same 404.

    It may have slashes, or be empty: ``DELETE …/api-keys/`` gets that 404 too.
    """

    regex = "(?s:.*)"
    part_isolating = False  # it may match slashes


bp = Blueprint("api_keys", __name__, url_prefix="/api/me/api-keys")
bp.before_request(interactive_session)


@bp.get("")
def list_keys() -> Answer:
    """My keys: active ones first, then newest first."""
    query = load_query(PageQuerySchema())  # page, per_page
    page = db.paginate(ApiKey.list_of(g.user), **query, error_out=False)
    data = {
        "api_keys": KeySchema(many=True).dump(page.items),
        "pagination": PaginationSchema().dump(page),
    }
    return success("api keys retrieved successfully", data)


@bp.post("")
def create_key() -> Answer:
    """Create a key. Wants the password again; only this answer shows the token."""
    # An extra that has seen another proof, and locked the user's row, sets g.proven: a
    # list of the fields that are not required then.
    data = load_json(NewKeySchema(partial=g.get("proven")))
    if "password" in data:
        User.check_password(  # also for its lock on the user's row
            g.user.username,
            data.pop("password"),
            current_origin(),
            "incorrect_password",
        )
    key = ApiKey.create(g.user, current_origin(), **data)
    # check_password() has noted a failed attempt and, the password being right, deletes
    # it: that is committed even if there is no key.
    db.session.commit()
    if key is None:
        raise Refused("max_keys_reached", setting("LATCHKEY_MAX_ACTIVE_KEYS"))
    return success("api key created successfully", CreatedKeySchema().dump(key), 201)


@bp.delete("/<key_id:key_id>")
def revoke_key(key_id: str) -> Answer:
    """Revoke one of my keys, for ever and at once."""
    ApiKey.revoke_own(g.user, key_id, current_origin())
    db.session.commit()
    return success("api key revoked successfully")


@bp.delete("")
def revoke_all_keys() -> Answer:
    """Revoke all my active keys, in one transaction."""
    revoked = ApiKey.revoke(current_origin(), ApiKey.active_of(g.user))
    db.session.commit()
    return success("api keys revoked successfully", {"revoked": revoked})
