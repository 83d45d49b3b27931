"""How the database is reached, how long it may take, and that commits are durable.

You can skip this file: the others use ``db.session`` or a ``Verifier``.
"""

import sqlite3
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg
from psycopg.abc import RV, PQGen


class Limits(NamedTuple):
    """How long a client of the database waits, in seconds."""

    statement: float  # for an answer
    lock: float  # for what another program has locked


ORM = Limits(statement=5, lock=4.5)
VERIFICATION = Limits(statement=1.5, lock=0.1)


def engine_options(url: str) -> dict[str, Any]:
    """The options of ``db.engine``.

    It has fewer connections than a worker has threads, so that whatever they wait for,
    threads are left to verify keys.
    """
    return {
        "url": url if is_sqlite(url) else "postgresql+psycopg://",
        "creator": partial(connect, url, ORM),
        "pool_size": 2,
        "max_overflow": 0,
        "pool_timeout": 1,  # seconds, then 503
        "pool_pre_ping": not is_sqlite(url),
        "hide_parameters": True,
    }


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite:")


def connect(url: str, limits: Limits) -> Any:
    """A new connection of the driver, which keeps these limits."""
    if is_sqlite(url):
        return connect_sqlite(url.removeprefix("sqlite:///"), limits)
    return connect_postgresql(url, limits)


def connect_sqlite(path: str, limits: Limits) -> sqlite3.Connection:
    """Only a migration makes the file: a wrong path is an error, not an empty database.

    With less than ``synchronous = FULL`` a power cut could bring a revoked key back.
    """
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw",
        uri=True,
        timeout=limits.lock,
        check_same_thread=False,  # one thread at a time, but not always the same
    )
    connection.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
    )
    return connection


class DatabaseHangs(psycopg.InterfaceError):
    """The server did not answer within the client's limit."""

    sqlstate = "08006"  # connection failure


class LimitedConnection(psycopg.Connection[Any]):
    """Waits a limited time for each answer, then closes itself.

    A server that hangs does not keep the limits that it was given, and psycopg offers
    none, so this overrides ``Connection.wait``, through which every statement goes.
    Nothing is cancelled: of a commit that is cancelled while it waits for a standby
    PostgreSQL reports success, although the standby may lack it.
    """

    limit = 0.0
    warnings: list[Any]  # of the server

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        try:
            return super().wait(gen, timeout=self.limit)
        except psycopg.errors._WaitTimeout:
            self.close()
            raise DatabaseHangs("no answer within the time limit") from None


# This overrides what the database, the role or the URL may set. A host that died keeps
# its locks for a minute at most.
POSTGRESQL_SETTINGS = """
    SET statement_timeout = 0;
    SET lock_timeout = '{lock}s';
    SET idle_in_transaction_session_timeout = '1min';
    SET default_transaction_isolation = 'read committed';
    SET standard_conforming_strings = on;
    SET DateStyle = 'ISO';
    SET TimeZone = 'UTC';
    SET client_min_messages = 'warning';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') <> 'remote_apply'
"""


def connect_postgresql(url: str, limits: Limits) -> LimitedConnection:
    """Of several hosts in the URL it is the primary: a standby may be late.

    With ``synchronous_commit`` below ``on`` an answered revocation could be lost.
    """
    connection = LimitedConnection.connect(
        url,
        client_encoding="UTF8",
        connect_timeout=2,  # seconds for each host, the least that psycopg takes
        target_session_attrs="primary",
        load_balance_hosts="random",  # the first may be a primary that was replaced
    )
    connection.limit = limits.statement
    connection.warnings = []
    connection.add_notice_handler(connection.warnings.append)
    connection.execute(POSTGRESQL_SETTINGS.format(lock=limits.lock))
    connection.commit()
    return connection
