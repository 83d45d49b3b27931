"""Is this key good? One read of its row for each question, and nothing is cached.

This is the path of every request of every service, so it goes around SQLAlchemy, which
costs more than the query (bench/RESULTS.md): plain SQL on connections of the driver.
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

# The WHERE looks again: of several requests at once only one writes. The stored time
# may be of a clock up to a minute ahead; one further ahead is wrong, and is replaced.
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
        # psycopg takes the statements as they are.
        self.sql = for_sqlite if is_sqlite(database_url) else str
        # Cursors that no thread uses, each with a connection of its own. A new one for
        # each question would cost more (bench/RESULTS.md).
        self.idle: list[Any] = []

    def good_key(self, text: str, get_origin: Callable[[], Origin]) -> KeyRow | None:
        """The row of the key with this token, if and only if it is good at this moment.

        ``get_origin`` is called only when there is something to note. Raises the
        driver's error when the database does not answer.
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

        Reads once more, on a new connection, if an idle one may have been stale.
        """
        values = {**times(), "public": public}
        reused = bool(self.idle)
        try:
            return self.first_row(values)
        except psycopg.OperationalError as error:
            if not reused or error.sqlstate == "55P03":  # the table is locked
                raise
            self.idle = []  # the server was restarted: none works; freed, they close
            return self.first_row(values)

    def first_row(self, values: dict[str, str]) -> KeyRow | None:
        with self.cursor() as cursor:
            rows = cursor.execute(self.sql(READ_KEY), values).fetchall()
        return KeyRow(*rows[0]) if rows else None

    def note(self, kind: str, key: KeyRow, get_origin: Callable[[], Origin]) -> None:
        """Write that a key was used, or refused and why, at most once a minute.

        ``kind`` is one of NOTES. A database that is busy or full is no reason to fail:
        the key was verified.
        """
        if getattr(key, f"{kind}_noted"):
            return
        values = key._asdict() | get_origin()._asdict() | times()
        try:
            with self.cursor() as cursor:
                cursor.execute("BEGIN")
                written = cursor.execute(self.sql(NOTES[kind]), values).rowcount
                if written and key.refusal:
                    cursor.execute(self.sql(AUDIT_REFUSAL), values)
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
            # It writes only notes of use and of refusals, which no standby needs.
            connection.execute("SET synchronous_commit = local")
        return connection.cursor()


@cache
def for_sqlite(statement: str) -> str:
    """SQLite's driver wants :name in place of %(name)s."""
    return re.sub(r"%\((\w+)\)s", r":\1", statement)


def times() -> dict[str, str]:
    """Now, and one minute before and after, as SQLite stores it: UTC without a zone.

    PostgreSQL reads such a text as UTC too, because ``connect`` sets its TimeZone.
    """
    now = utcnow()
    moments = {
        "minute_ago": now - MINUTE,
        "now": now,
        "in_a_minute": now + MINUTE,
    }
    return {
        name: time.isoformat(" ", "microseconds")[:26] for name, time in moments.items()
    }
