"""How Alembic reaches the database: on a connection that waits as long as it takes."""

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
    except OSError as error:
        raise SystemExit(f"latchkey: DATABASE_URL cannot be written: {error}") from None


if is_sqlite(url):
    make_sqlite_file(Path(url.removeprefix("sqlite:///")))
engine = sa.create_engine(
    "sqlite://" if is_sqlite(url) else "postgresql+psycopg://",
    creator=lambda: connect(url, limits),
    poolclass=sa.NullPool,
)

with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=is_sqlite(url),
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
