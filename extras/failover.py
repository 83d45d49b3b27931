"""A failover brings no revoked key back: PostgreSQL under Patroni, LATCHKEY_FAILOVER=1.

A primary that was replaced may not know it: where Patroni hangs, its PostgreSQL goes on
answering from old rows. So what was read lets nobody in before a commit that began
later, on the same server, was acknowledged by its synchronous standby. This is enough:

- In strict synchronous mode Patroni promotes only the synchronous standby.
- A standby stops receiving before it is promoted, and takes no write before that.
- So when it acknowledged the commit it was not promoted: no revocation had been
  answered by another server before the read began.

Raft calls this a read index. ``pg_logical_emit_message(true, ...)`` gives a transaction
something to commit. A refusal needs no confirmation: it lets nobody in.
"""

import logging
import time
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, make_response
from marshmallow import Schema
from psycopg.conninfo import conninfo_to_dict

import errors
from config import number, read_settings
from models.connections import SESSION, VERIFICATION, is_sqlite
from models.database import db
from models.key_row import READ_KEY, KeyRow
from models.verification import Verifier
from verify import VerifyMiddleware

# False if no commit waits for a standby.
CONFIRM = """
    current_setting('synchronous_standby_names') <> ''
    AND pg_logical_emit_message(true, 'latchkey', '') IS NOT NULL
"""
# The standby has to receive the message, but need not write it to its disk.
CONFIRMED_READ = f"""
    SELECT key.*, CASE WHEN refusal IS NULL THEN
        set_config('synchronous_commit', 'remote_write', true) <> '' AND {CONFIRM}
    ELSE true END FROM ({READ_KEY}) AS key
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
            for *columns, confirmed in cursor.execute(CONFIRMED_READ, values):
                require(confirmed, cursor.connection)
                return KeyRow(*columns)
        return None


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
    app.after_request(confirm_reads)
    with app.app_context():
        sa.event.listen(db.engine, "commit", confirm_commit)


def confirm_reads(response: Response) -> Response:
    """Commit what a view has only read, a session above all; 503 if that fails."""
    try:
        if response.status_code < 400:
            db.session.commit()
    except sa.exc.SQLAlchemyError as error:
        response = make_response(errors.handle(error))
    return response


def confirm_commit(connection: sa.Connection) -> None:
    """Commit in SQLAlchemy's place: what was only read waits for the standby too.

    Raises Unconfirmed after a commit that waited for no standby: it may be lost.
    """
    driver: Any = connection.connection.dbapi_connection
    confirmed = connection.exec_driver_sql(f"SELECT {CONFIRM}").scalar()
    driver.limit = VERIFICATION.statement
    connection.exec_driver_sql("COMMIT")
    driver.limit = SESSION.statement
    require(confirmed, driver)


def require(confirmed: bool | None, connection: Any) -> None:
    """Raises Unconfirmed if this connection's last commit waited for no standby."""
    if not confirmed:
        complain(int(time.monotonic() / 60))
    if not confirmed or connection.warnings:
        raise Unconfirmed("no standby confirms that this is the primary")


@lru_cache(maxsize=1)
def complain(minute: int) -> None:
    """Log why nobody gets in, once a minute."""
    logging.getLogger(__name__).error(
        "synchronous_standby_names is empty: nobody gets in"
    )
