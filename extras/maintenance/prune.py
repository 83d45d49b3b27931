"""flask prune: delete what nobody needs any more."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click
import sqlalchemy as sa
from flask.cli import with_appcontext

from extras.operator import OneLineErrors, origin
from models.api_key import ApiKey
from models.audit_event import AuditEvent
from models.database import Condition, db, utcnow
from models.session import Session

BATCH = 500  # rows
PAUSE = 0.05  # seconds, in which others may write


@click.command("prune", cls=OneLineErrors)
@click.option(
    "--days",
    default=90,
    type=click.IntRange(1, 36500),
    help="How long they are kept.",
)
@click.option("--dry-run", is_flag=True, help="Only count them.")
@with_appcontext
def prune(days: int, dry_run: bool) -> None:
    """Delete expired sessions, old audit rows, and old keys that are of no use."""
    if dry_run:
        click.echo(f"would prune {apply(count, days)}")
        return
    event = AuditEvent.record("pruned", origin(), reason=f"{days} days, not completed")
    event.reason = apply(delete, days)
    db.session.commit()
    click.echo(f"pruned {event.reason}")


def apply(act: Callable[[Any, Condition], int], days: int) -> str:
    """Apply it to the rows of each table that nobody needs; how many, in words."""
    past = utcnow() - timedelta(days=days)
    unusable = sa.or_(ApiKey.revoked_at < past, ApiKey.expires_at < past)
    sessions = act(Session.digest, Session.expires_at <= utcnow())
    events = act(AuditEvent.id, AuditEvent.created_at < past)
    keys = act(ApiKey.id, unusable)
    return f"{sessions} sessions, {events} audit events, {keys} keys"


def count(column: Any, condition: Condition) -> int:
    query = sa.select(sa.func.count(column)).where(condition)
    return db.session.scalars(query).one()


def delete(column: Any, condition: Condition) -> int:
    """Delete rows in batches, each with a commit of its own; how many.

    A revocation never waits long for one. Choosing and deleting are two statements: as
    one, with statistics from before the table grew, PostgreSQL takes seconds for it.
    They are two transactions, because on SQLite one that has read cannot write any more
    after somebody else has written.
    """
    some = sa.select(column).where(condition).limit(BATCH)
    total = 0
    while chosen := db.session.scalars(some).all():
        db.session.commit()
        statement = sa.delete(column.class_).where(column.in_(chosen))
        total += db.session.connection().execute(statement).rowcount
        db.session.commit()
        time.sleep(PAUSE)
    return total
