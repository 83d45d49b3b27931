"""The database: its connections, its clock, its refusals."""

import fcntl
import logging
import os
import sqlite3
import time
import uuid
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import BoundedSemaphore
from typing import Any

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
Condition = sa.ColumnElement[bool]  # which rows
# What a host had locked that died meanwhile is free again after a minute.
ORPHANS = "SET idle_in_transaction_session_timeout = 60000"
clock = {"latest": datetime.now(UTC)}
hung: set[sa.Engine] = set()  # one that was waited for in vain, until it answers
writers = BoundedSemaphore(2)  # of a worker's threads; the others are for verifications


def utcnow() -> datetime:
    """Now, in UTC. A clock that steps back is told to the log: what had expired lives again."""
    now, latest = datetime.now(UTC), clock["latest"]
    if now < latest - timedelta(seconds=2):
        logging.getLogger(__name__).warning("the clock stepped back by %s", latest - now)
    clock["latest"] = now
    return now


def new_id() -> str:
    """A random UUID in its canonical text form (RFC 9562, version 4)."""
    return str(uuid.uuid4())


@sa.event.listens_for(db.session, "do_orm_execute")
def awake(state: Any) -> None:
    """Refused: ``busy``, while the database is known to hang: no thread is to wait for it."""
    if hung:
        raise Refused("busy", 1)


@sa.event.listens_for(sa.Engine, "connect")
def durable(connection: Any, record: object) -> None:
    """Acknowledged means durable: with less, a power cut can bring a revoked key back to life."""
    if isinstance(connection, sqlite3.Connection):
        wal = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
        connection.executescript(wal)
    elif connection.info.get_parameters().get("application_name") == "latchkey-hasty":  # config.py
        connection.wait = partial(connection.wait, timeout=1.5)  # s, for a server that hangs
        connection.execute(f"SET lock_timeout = 100; {ORPHANS}")
    else:  # as long as SQLite waits; remote_apply stays
        on = "SELECT set_config('synchronous_commit', 'on', false)"
        off = "current_setting('synchronous_commit') = 'off'"
        connection.execute(f"SET lock_timeout = 5000; {ORPHANS}; {on} WHERE {off}")
    connection.commit()


@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def take_turns(connection: sa.Connection, cursor: Any, statement: str, *rest: Any) -> None:
    """One after the other: SQLite sleeps up to 100 ms while another writes, this queue does not.

    Refused: ``busy``, where what is no part of the queue holds its first ones up.
    """
    writes = statement.startswith(("INSERT", "UPDATE", "DELETE"))
    if not writes or connection.engine is not db.engine or "turn" in connection.info:
        return
    if not writers.acquire(timeout=1):
        raise Refused("busy", 1)
    turn = connection.info["turn"] = ExitStack()
    turn.callback(writers.release)
    if connection.dialect.name == "sqlite":
        path = f"{connection.engine.url.database}-turn"  # to read only: it may be root's
        queue = os.open(path, os.O_CREAT, 0o644)
        turn.callback(os.close, queue)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                return fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.0002)
        raise Refused("busy", 1)


@sa.event.listens_for(sa.Pool, "checkin")
def next_turn(connection: Any, record: Any) -> None:
    """After the commit; the kernel does it for a worker that was killed."""
    if turn := record.info.pop("turn", None):
        turn.close()
