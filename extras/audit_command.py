"""flask audit: what happened to everybody's keys and accounts."""

from datetime import datetime

import click
import sqlalchemy as sa
from flask import Flask
from flask.cli import with_appcontext

from extras.commands.keys import find_key
from extras.operator import OneLineErrors, as_json, find_user, show, user_option
from models.api_key import ApiKey
from models.audit_event import AuditEvent
from models.database import db
from models.user import User

# For the throttle. Neither the API nor a command shows them.
HIDDEN = ("name_digest", "network")
FIELDS = [each for each in AuditEvent.__table__.columns if each.name not in HIDDEN]
TABLE = [
    "created_at",
    "event",
    "reason",
    "ip",
    "username",
    "key_public",
    "key_name",
]


def register(app: Flask) -> None:
    app.cli.add_command(audit)


@click.command("audit", cls=OneLineErrors)
@user_option
@click.option("--event", help="Only this event, for example auth_failed.")
@click.option("--key", help="Only this key's; named as for `keys revoke`.")
@click.option(
    "--since",
    metavar="TIME",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="In UTC: 2026-11-24 or 2026-11-24T03:00:00Z.",
)
@as_json
@with_appcontext
def audit(
    username: str | None,
    event: str | None,
    key: str | None,
    since: datetime | None,
    as_json: bool,
) -> None:
    """What happened to keys and accounts, the newest last."""
    query = (
        sa.select(*FIELDS, User.username, ApiKey.key_public)
        .select_from(AuditEvent)
        .outerjoin(User, User.id == AuditEvent.user_id)
        .outerjoin(ApiKey, ApiKey.id == AuditEvent.api_key_id)
        .order_by(AuditEvent.id)
    )
    if username is not None:
        query = query.where(AuditEvent.user_id == find_user(username).id)
    if event is not None:
        query = query.where(AuditEvent.event == event)
    if key is not None:
        query = query.where(AuditEvent.api_key_id == find_key(key).id)
    if since is not None:
        query = query.where(AuditEvent.created_at >= since)
    show(db.session.execute(query).mappings().all(), TABLE, as_json)
