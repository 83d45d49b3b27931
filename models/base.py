"""The database: its connections, its clock, its refusals."""

import fcntl
import sqlite3
import uuid
from datetime import UTC, datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, registry


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite would forget the zone, PostgreSQL has its own."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


class Model(DeclarativeBase):
    registry = registry(type_annotation_map={datetime: UTCDateTime})


class Refused(Exception):
    """A rule of the domain says no: which one, and of what (an id, or seconds to wait)."""

    def __init__(self, rule: str, value: str | int = "") -> None:
        self.rule, self.value = rule, value


# What was loaded stays readable after the commit: no view pays a second query for its answer.
db = SQLAlchemy(model_class=Model, session_options={"expire_on_commit": False})


def utcnow() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """A random UUID in its canonical text form (RFC 9562, version 4)."""
    return str(uuid.uuid4())


class Hasty(psycopg.Connection[Any]):
    """Waits 1.5 seconds, not for ever, for the answer of a server that hangs."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = 1.5) -> Any:
        return super().wait(gen, interval, timeout)


@sa.event.listens_for(sa.Engine, "do_connect")
def hasten(dialect: sa.Dialect, record: Any, args: Any, options: dict[str, Any]) -> Hasty | None:
    """What a verification waits for; None leaves the others to SQLAlchemy."""
    return Hasty.connect(*args, **options) if "options" in options else None


@sa.event.listens_for(sa.Engine, "connect")
def durable(connection: Any, record: object) -> None:
    """Acknowledged means durable: with less, a power cut can bring a revoked key back to life."""
    if isinstance(connection, sqlite3.Connection):
        wal = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
        connection.executescript(wal)
    else:  # a stronger setting of the server, such as remote_apply, stays
        on = "SELECT set_config('synchronous_commit', 'on', false)"
        connection.execute(f"{on} WHERE current_setting('synchronous_commit') = 'off'")
        connection.commit()


@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def take_turns(connection: sa.Connection, cursor: Any, statement: str, *rest: Any) -> None:
    """SQLite sleeps up to 100 ms while another writes; in this queue the next one wakes at once."""
    writes = statement.startswith(("INSERT", "UPDATE", "DELETE"))
    if connection.dialect.name != "sqlite" or not writes or connection.engine is not db.engine:
        return
    if "turn" not in connection.info:
        turn = connection.info["turn"] = open(f"{connection.engine.url.database}-turn", "w")
        fcntl.flock(turn, fcntl.LOCK_EX)


@sa.event.listens_for(sa.Pool, "checkin")
def next_turn(connection: Any, record: Any) -> None:
    """After the commit; the kernel does it for a worker that was killed."""
    if turn := record.info.pop("turn", None):
        turn.close()
