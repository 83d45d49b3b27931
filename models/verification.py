"""Is this key good? The path of every request: one read of the row, and nothing cached.

It goes around the ORM and Core: the SQL is compiled once and runs on the pool's own connection,
which costs half as much (bench/RESULTS.md). Times come as whole seconds since 1970, on which
both databases agree.
"""

import hmac
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa

import tokens
from models.api_key import ApiKey
from models.audit_event import AuditEvent, Origin
from models.base import db, utcnow
from models.user import User

MINUTE = 60
NOTED_IN = {None: "last_used_at", "wrong_secret": "last_mismatch_at"}


class Verified(NamedTuple):
    """A key and its owner at this moment."""

    id: str
    key_public: str
    digest: bytes
    name: str
    mode: str
    user_id: str
    username: str
    created_at: int
    expires_at: int
    revoked_at: int | None
    suspended_at: int | None
    last_used_at: int | None
    last_refused_at: int | None
    last_mismatch_at: int | None


@cache
def lookup(dialect: sa.Dialect) -> str:
    """The SQL that reads the fields of Verified by a public part."""
    columns = [getattr(ApiKey, name, None) or getattr(User, name) for name in Verified._fields]
    seconds = [
        sa.cast(sa.extract("epoch", each), sa.BigInteger) if "_at" in each.key else each
        for each in columns
    ]
    rows = sa.select(*seconds).join(User, User.id == ApiKey.user_id)
    return str(rows.where(ApiKey.key_public == sa.bindparam("public")).compile(dialect=dialect))


def find(public: str) -> Verified | None:
    """The row, good or dead. After a restart of the database, old connections are given up."""
    engine = db.engines["verify"]
    try:
        return read(engine, public)
    except engine.dialect.loaded_dbapi.Error:
        engine.dispose()
        return read(engine, public)


def read(engine: sa.Engine, public: str) -> Verified | None:
    wanted: Any = (public,) if engine.dialect.positional else {"public": public}
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(lookup(engine.dialect), wanted)
        row = cursor.fetchone()
        cursor.close()
        return Verified(*row) if row else None
    except engine.dialect.loaded_dbapi.Error:
        connection.invalidate()
        raise
    finally:
        connection.close()


def verify(token: tokens.Token, origin: Callable[[], Origin]) -> Verified | None:
    """The key, if and only if it is good at this moment."""
    key, now = find(token.public), time.time()
    if key is None:
        return None
    reason = refusal(key, token, now)
    column = NOTED_IN.get(reason, "last_refused_at")
    last = getattr(key, column)
    if last is None or last < now - MINUTE:
        note(key, reason, getattr(ApiKey, column), origin())
    return None if reason else key


def refusal(key: Verified, token: tokens.Token, now: float) -> str | None:
    """Why this token does not open this key now, or None when it does."""
    if not hmac.compare_digest(key.digest, token.digest):
        return "wrong_secret"
    if key.revoked_at is not None:
        return "revoked"
    if key.suspended_at is not None:
        return "user_suspended"
    return None if key.expires_at > now else "expired"


def note(key: Verified, reason: str | None, column: Any, origin: Origin) -> None:
    """Write in ``column`` when a key was used, or refused and why, at most once a minute.

    Of many at once, one finds the old time; a database that is busy or full is no reason to fail.
    """
    now, about = utcnow(), {"api_key_id": key.id, "user_id": key.user_id, "reason": reason}
    about |= {"key_name": key.name, "key_mode": key.mode, **origin._asdict()}
    due = (ApiKey.id == key.id, sa.or_(column.is_(None), column <= now - timedelta(seconds=MINUTE)))
    values = {column: now} if reason else {column: now, ApiKey.last_used_ip: origin.ip}
    try:
        with db.engines["notes"].begin() as connection:
            first = connection.execute(sa.update(ApiKey).where(*due).values(values)).rowcount
            if first and reason:
                connection.execute(sa.insert(AuditEvent).values(event="auth_failed", **about))
    except sa.exc.DBAPIError as exc:
        logging.getLogger(__name__).warning("use of key %s not noted: %s", key.id, exc.orig)
