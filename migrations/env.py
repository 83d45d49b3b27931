"""How Alembic reaches the database: in a transaction, with no limit for a statement."""

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from alembic import context
from flask import current_app

from models.connections import Limits, connect, is_sqlite

db = current_app.extensions["migrate"].db
url = current_app.config["DATABASE_URL"]
limits = Limits(statement=24 * 3600, lock=4.5)


def make_sqlite_file(path):
    """Raises SystemExit with one line where nothing can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        connection = connect_for_migration()
        connection.execute("BEGIN")
        connection.execute("PRAGMA user_version = 0")  # as it is, but written
        connection.close()
    except (OSError, sqlite3.Error) as error:
        raise SystemExit(f"latchkey: DATABASE_URL cannot be written: {error}") from None


def connect_for_migration():
    connection = connect(url, limits)
    if is_sqlite(url):
        # A changed table is a copy under the old name, which other tables refer to.
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.isolation_level = None  # or the driver commits before each DDL
    return connection


if is_sqlite(url):
    make_sqlite_file(Path(url.removeprefix("sqlite:///")))
engine = sa.create_engine(
    "sqlite://" if is_sqlite(url) else "postgresql+psycopg://",
    creator=connect_for_migration,
    poolclass=sa.NullPool,
)


@sa.event.listens_for(engine, "begin")
def begin(connection):
    """A migration that is killed halfway leaves nothing behind."""
    if is_sqlite(url):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def has_a_model(item, name, kind, reflected, compare_to):
    """Tables of an extra that was deleted stay as they are."""
    return kind != "table" or not reflected or compare_to is not None


with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=is_sqlite(url),
        transactional_ddl=True,
        compare_type=True,
        include_object=has_a_model,
    )
    with context.begin_transaction():
        context.run_migrations()
