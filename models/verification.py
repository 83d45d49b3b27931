"""Is this key good? Each question reads the key's row again: nothing is cached.

Every request of every service asks, so this goes around SQLAlchemy, which costs more
than the query (bench/RESULTS.md): plain SQL on connections of the database's driver,
sqlite3 or psycopg.
"""

import hmac
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import psycopg

import tokens
from models.audit_event import Origin
from models.connections import VERIFICATION, connect, is_sqlite
from models.database import utcnow
from models.key_row import READ_KEY, KeyRow

MINUTE = timedelta(minutes=1)
log = logging.getLogger(__name__)

# At most once a minute each. Requests at the same moment have all read that nothing is
# noted, so the WHERE looks again: only one writes. A stored time may be of a clock up
# to a minute ahead; one further ahead is wrong, and is replaced. A mismatch has its own
# column, so that whoever knows only the public part of a token hides no refusal.
NOTES = {
    "use": """
    UPDATE api_keys SET last_used_at = %(now)s, last_used_ip = %(ip)s
    WHERE id = %(id)s AND (last_used_at IS NULL
        OR last_used_at NOT BETWEEN %(minute_ago)s AND %(in_a_minute)s)
""",
    "refusal": """
    UPDATE api_keys SET last_refused_at = %(now)s
    WHERE id = %(id)s AND (last_refused_at IS NULL
        OR last_refused_at NOT BETWEEN %(minute_ago)s AND %(in_a_minute)s)
""",
    "mismatch": """
    UPDATE api_keys SET last_mismatch_at = %(now)s
    WHERE id = %(id)s AND (last_mismatch_at IS NULL
        OR last_mismatch_at NOT BETWEEN %(minute_ago)s AND %(in_a_minute)s)
""",
}
AUDIT_REFUSAL = """
    INSERT INTO audit_events (created_at, event, reason, user_id, api_key_id, key_name,
        key_mode, ip, method, path)
    VALUES (%(now)s, 'auth_failed', %(refusal)s, %(user_id)s, %(id)s, %(name)s,
        %(mode)s, %(ip)s, %(method)s, %(path)s)
"""


class Verifier:
    """Tells good keys from others; one for each application, shared by its threads."""

    def __init__(self, database_url: str, key_prefix: str) -> None:
        self.database_url = database_url
        self.key_prefix = key_prefix
        # str changes nothing: the statements are written as psycopg takes them.
        self.in_dialect = for_sqlite if is_sqlite(database_url) else str
        # Cursors that no thread uses, each with a connection of its own: to connect for
        # each question would cost more. A list's pop() and append() need no lock.
        self.idle: list[Any] = []

    def good_key(self, text: str, get_origin: Callable[[], Origin]) -> KeyRow | None:
        """The row of the key with this token, if and only if it is good at this moment.

        It notes the use or the refusal. ``get_origin`` is called only if that is to be
        written. Raises the driver's error if the database does not answer.
        """
        token = tokens.parse(text, self.key_prefix)
        if token is None:
            return None
        key = self.read(token.public)
        if key is None:
            return None
        kind = "use"
        if not hmac.compare_digest(key.digest, token.digest):
            kind = "mismatch"
            key = key._replace(refusal="wrong_secret")
        elif key.refusal:
            kind = "refusal"
        self.note(kind, key, get_origin)
        return None if key.refusal else key

    def read(self, public: str) -> KeyRow | None:
        """The row of the key with this public part, good or not.

        Reads once more, on a new connection, if an idle one may have been stale: the
        server was restarted. A hang is DatabaseHangs, which is no OperationalError, so
        it is not waited for twice.
        """
        values = {**times(), "public": public}
        reused = bool(self.idle)
        try:
            return self.first_row(values)
        except psycopg.OperationalError as error:
            if not reused or error.sqlstate == "55P03":  # the table is locked
                raise
            self.idle = []  # drop them all; a connection that nobody has closes itself
            return self.first_row(values)

    def first_row(self, values: dict[str, str]) -> KeyRow | None:
        with self.cursor() as cursor:
            # fetchall() ends the statement, and with it SQLite's view of the database.
            rows = cursor.execute(self.in_dialect(READ_KEY), values).fetchall()
        return KeyRow(*rows[0]) if rows else None

    def note(self, kind: str, key: KeyRow, get_origin: Callable[[], Origin]) -> None:
        """Write that a key was used, or refused and why, unless it is noted already.

        ``kind`` is a key of NOTES. A database that is busy or full is no reason to
        fail: the answer is known without the note.
        """
        if getattr(key, f"{kind}_noted"):  # use_noted, refusal_noted, mismatch_noted
            return
        values = key._asdict() | get_origin()._asdict() | times()
        try:
            with self.cursor() as cursor:
                cursor.execute("BEGIN")
                written = cursor.execute(self.in_dialect(NOTES[kind]), values).rowcount
                if written and key.refusal:
                    cursor.execute(self.in_dialect(AUDIT_REFUSAL), values)
                    # extras/log.py prints some of it.
                    log.info("auth_failed", extra={"audit": values})
                cursor.execute("COMMIT")
        except (sqlite3.Error, psycopg.Error) as error:
            log.warning("use of key %s not noted: %s", key.id, error)

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """An idle cursor or a new one; closed if what is done with it fails."""
        try:
            cursor = self.idle.pop()
        except IndexError:
            cursor = self.new_cursor()
        try:
            yield cursor
        except BaseException:
            cursor.connection.close()
            raise
        self.idle.append(cursor)

    def new_cursor(self) -> Any:
        """The cursor of a new connection, in autocommit mode."""
        connection = connect(self.database_url, VERIFICATION)
        if is_sqlite(self.database_url):
            connection.isolation_level = None
        else:
            connection.autocommit = True
            # Notes need not wait for a standby; revoking does not go this way.
            connection.execute("SET synchronous_commit = local")
        return connection.cursor()


@cache
def for_sqlite(statement: str) -> str:
    """SQLite's driver wants :name in place of %(name)s."""
    return re.sub(r"%\((\w+)\)s", r":\1", statement)


def times() -> dict[str, str]:
    """Now, and one minute before and after: UTC, without a zone, as SQLite stores it.

    PostgreSQL takes such a text for UTC, because ``connect`` sets its TimeZone.
    """
    now = utcnow()
    moments = {
        "minute_ago": now - MINUTE,
        "now": now,
        "in_a_minute": now + MINUTE,
    }
    return {
        name: time.isoformat(" ", "microseconds")[:26]  # without +00:00
        for name, time in moments.items()
    }
