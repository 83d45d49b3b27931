"""A failover brings no revoked key back: PostgreSQL under Patroni, LATCHKEY_FAILOVER=1.

A primary that was replaced may not know it: where Patroni hangs, its PostgreSQL goes on
answering from old rows. So a request gets in only if a commit that began after it, on
the server that it read, was acknowledged by that server's synchronous standby:

- In strict synchronous mode Patroni promotes only the synchronous standby. Quorum mode
  (``ANY``) is refused: there one standby may confirm while another one is promoted.
- A standby that is promoted first stops to receive, and only then takes writes.
- So when it acknowledged that commit, no other server had answered a revocation yet;
  and what this server had answered before the request began, the request has read.

Raft calls this a read index. ``pg_logical_emit_message(true, ...)`` gives a transaction
something to commit. A refusal needs no confirmation: it lets nobody in.
"""

import logging
import time
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from flask import Flask
from marshmallow import Schema
from psycopg.conninfo import conninfo_to_dict

from config import number, read_settings
from models.connections import ORM, VERIFICATION, is_sqlite
from models.database import db
from models.key_row import READ_KEY, KeyRow
from models.verification import Verifier
from verify import VerifyMiddleware

# If it is empty, no commit waits for a standby. psycopg reads %% as %.
NAMED = """
    current_setting('synchronous_standby_names') <> ''
    AND current_setting('synchronous_standby_names') NOT ILIKE 'any %%'
"""
CONFIRM = f"{NAMED} AND pg_logical_emit_message(true, 'latchkey', '') IS NOT NULL"
# It is a good key, or nobody's: /healthz asks with an empty one whether this works. The
# standby has to receive the message, but need not write it to its disk.
CONFIRMED_READ = f"""
    SELECT key.*, CASE
        WHEN refusal IS NOT NULL OR id IS NULL AND %(public)s <> '' THEN true
        ELSE set_config('synchronous_commit', 'remote_write', true) <> '' AND {CONFIRM}
    END
    FROM (VALUES (1)) AS always LEFT JOIN ({READ_KEY}) AS key ON true
"""  # noqa: S608


class Settings(Schema):
    LATCHKEY_FAILOVER = number(0, 0, 1)


class Unconfirmed(sa.exc.SQLAlchemyError):
    """This server may no longer be the primary."""

    sqlstate = "08006"  # errors.py answers 503, as if the server had not answered


class ConfirmingVerifier(Verifier):
    """Confirms that a key is good in the statement that reads it."""

    def first_row(self, values: dict[str, str]) -> KeyRow | None:
        with self.cursor() as cursor:
            cursor.connection.warnings.clear()
            *columns, confirmed = cursor.execute(CONFIRMED_READ, values).fetchone()
            require(confirmed, cursor.connection)
        return KeyRow(*columns) if columns[0] else None


def register(app: Flask) -> None:
    url = app.config["DATABASE_URL"]
    settings = read_settings(Settings(), app.config["ENVIRON"])
    if not settings["LATCHKEY_FAILOVER"]:
        if not is_sqlite(url) and "," in str(conninfo_to_dict(url).get("host")):
            app.logger.warning("DATABASE_URL has several hosts: see LATCHKEY_FAILOVER")
        return
    if is_sqlite(url):
        raise SystemExit("latchkey: LATCHKEY_FAILOVER needs PostgreSQL")
    verifier = ConfirmingVerifier(url, app.config["LATCHKEY_KEY_PREFIX"])
    app.extensions["verifier"] = verifier
    app.wsgi_app = VerifyMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, verifier
    )
    with app.app_context():
        sa.event.listen(db.engine, "begin", confirm)
        sa.event.listen(db.engine, "commit", confirm)


def confirm(connection: sa.Connection) -> None:
    """Commit, and check that this waited for the standby: Unconfirmed if it did not.

    When a transaction begins this shows that the server is the primary, before anything
    is read or locked there. When it ends this commits it, in SQLAlchemy's place.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.warnings.clear()
    connection.exec_driver_sql(f"SELECT {CONFIRM}")
    driver.limit = VERIFICATION.statement
    try:
        connection.exec_driver_sql("COMMIT")
    finally:
        driver.limit = ORM.statement
    # Asked afterwards: if the setting is emptied meanwhile, nobody waits any longer.
    waited = connection.exec_driver_sql(f"SELECT {NAMED}").scalar()
    require(waited, driver)


def require(confirmed: Any, connection: Any) -> None:
    """Raises Unconfirmed if this connection's last commit waited for no standby.

    A wait that is cancelled ends with a warning, and with success.
    """
    if not confirmed or connection.warnings:
        complain(time.monotonic() // 60)
        raise Unconfirmed("no standby confirms that this is the primary")


@lru_cache(1)
def complain(minute: float) -> None:
    """Log once a minute why somebody did not get in."""
    logging.getLogger(__name__).error(
        "a commit did not wait for a standby, so it lets nobody in:"
        " synchronous_standby_names is empty or has ANY, or the wait was cancelled"
    )
