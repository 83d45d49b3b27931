"""Is this key good? The path of every request: one read of the row, and nothing cached.

It goes around the ORM and Core, which cost twice as much (bench/RESULTS.md): this SQL runs on the
driver's own connection.
"""

import hmac
import logging
import re
import time
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from threading import Thread, local
from typing import Any

import sqlalchemy as sa
from flask import current_app

import tokens
from models.api_key import ApiKey
from models.audit_event import AuditEvent, Origin
from models.base import Refused, db, hung, utcnow

READ = """
    SELECT k.id, k.key_public, k.digest, k.name, k.mode, k.user_id, u.username,
        CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
             WHEN u.suspended_at IS NOT NULL THEN 'user_suspended'
             WHEN k.expires_at <= :now THEN 'expired' END,
        k.last_used_at BETWEEN :past AND :now, k.last_refused_at BETWEEN :past AND :now,
        k.last_mismatch_at BETWEEN :past AND :now
    FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.key_public = :public"""
SQL = {"sqlite": READ, "postgresql": re.sub(r":(\w+)", r"%(\1)s", READ)}
NOTED = {None: "used", "wrong_secret": "mismatch"}  # anything else: "refused"
MINUTE = timedelta(minutes=1)
threads: Any = local()


# A key and its owner at this moment; ``dead`` is why it opens nothing now, and the last three are
# whether a use, a refusal or a wrong secret was noted within the last minute.
Verified = namedtuple(
    "Verified", "id key_public digest name mode user_id username dead used refused mismatch"
)


def api_key(text: str, origin: Callable[[], Origin]) -> Verified | None:
    """The key with this token, if and only if it is good at this moment."""
    token = tokens.parse(text, current_app.config["LATCHKEY_KEY_PREFIX"])
    if not token or not (key := find(db.engines["verify"], token.public)):
        return None
    reason = key.dead if hmac.compare_digest(key.digest, token.digest) else "wrong_secret"
    kind = NOTED.get(reason, "refused")
    if not getattr(key, kind):
        note(key, reason, getattr(ApiKey, f"last_{kind}_at"), origin())
    return None if reason else key


def find(engine: sa.Engine, public: str) -> Verified | None:
    """The row, good or dead. A database that was restarted is asked again, over a new connection;
    one that hangs holds up those who are waiting now, then one thread. Refused: ``busy``."""
    if engine in hung:
        raise Refused("busy", 1)
    began = time.monotonic()
    try:
        return read(engine, public)
    except engine.dialect.loaded_dbapi.Error:
        drop(engine)
        if hangs(engine, began):
            raise
        return read(engine, public)


def hangs(engine: sa.Engine, began: float) -> bool:
    """Whether what failed now had been waited for; then a thread waits in place of all others."""
    waited = time.monotonic() - began > 1
    if waited and engine not in hung:
        hung.add(engine)
        Thread(target=watch, args=(engine,), daemon=True).start()
    return waited


def watch(engine: sa.Engine) -> None:
    logging.getLogger(__name__).error("the database hangs")
    while engine in hung:
        with suppress(Exception):
            read(engine, "")
            hung.discard(engine)
        drop(engine)
        time.sleep(0.2)


def drop(engine: sa.Engine) -> None:
    if lost := threads.__dict__.pop(engine, None):
        lost.invalidate()


def read(engine: sa.Engine, public: str) -> Verified | None:
    """Over a connection that the thread keeps: a loan from a pool costs more than the query."""
    kept: dict[Any, sa.PoolProxiedConnection] = threads.__dict__
    connection = kept.get(engine) or kept.setdefault(engine, engine.raw_connection())
    now = utcnow()  # in SQLite's own form letters compare as times do; the zone is for PostgreSQL
    at, past = (moment.isoformat(" ", "microseconds") for moment in (now, now - MINUTE))
    driver: Any = connection.driver_connection
    values = {"public": public, "now": at, "past": past}
    rows = driver.execute(SQL[engine.dialect.name], values).fetchall()
    return Verified(*rows[0]) if rows else None


def note(key: Verified, reason: str | None, column: Any, origin: Origin) -> None:
    """Write in ``column`` when a key was used, or refused and why, at most once a minute.

    Of many at once, one finds the old time; a database that is busy or full is no reason to fail.
    """
    now, about = utcnow(), {"api_key_id": key.id, "user_id": key.user_id, "reason": reason}
    about |= {"key_name": key.name, "key_mode": key.mode, **origin._asdict()}
    recent = column.between(now - MINUTE, now + MINUTE)  # what a wrong clock noted ahead is not
    due = (ApiKey.id == key.id, sa.or_(column.is_(None), sa.not_(recent)))
    values = {column: now} if reason else {column: now, ApiKey.last_used_ip: origin.ip}
    engine, began = db.engines["notes"], time.monotonic()
    if engine in hung:
        return
    try:
        with engine.begin() as connection:
            if engine.name == "postgresql":  # what nobody was promised waits for no other host
                connection.execute(sa.text("SET LOCAL synchronous_commit = local"))
            first = connection.execute(sa.update(ApiKey).where(*due).values(values)).rowcount
            if first and reason:
                connection.execute(sa.insert(AuditEvent).values(event="auth_failed", **about))
    except sa.exc.DBAPIError as exc:
        hangs(engine, began)
        logging.getLogger(__name__).warning("use of key %s not noted: %s", key.id, exc.orig)
