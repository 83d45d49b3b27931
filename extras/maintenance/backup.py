"""flask backup: a copy of the database, made while Latchkey serves."""

import os
import sqlite3
from contextlib import closing
from typing import Any

import click
import sqlalchemy as sa
from flask.cli import with_appcontext

from extras.operator import OneLineErrors, cell
from models.database import db
from models.user import User


@click.command("backup", cls=OneLineErrors)
@click.argument("file", type=click.Path(resolve_path=True))
@with_appcontext
def backup(file: str) -> None:
    """Copy the SQLite database to FILE, which must not exist, and check the copy."""
    if db.engine.name == "postgresql":
        raise click.ClickException("this is PostgreSQL: use its pg_dump")
    users = db.session.scalar(sa.select(sa.func.count(User.id)))
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL, mode=0o600))
        copy_to(file)
    except sqlite3.Error as error:
        raise click.ClickException(f"no backup: {error}") from None
    click.echo(f"{cell(file)}: {users} users, integrity checked")


def copy_to(file: str) -> None:
    """Copy the database into an empty file, or delete that. Raises sqlite3.Error.

    It reads in one step: in WAL mode that sees one moment and holds no writer up.
    """
    source: Any = db.session.connection().connection.driver_connection
    try:
        with closing(sqlite3.connect(file)) as copy:
            # Nothing lies beside the file that a failure could leave behind.
            copy.execute("PRAGMA journal_mode = MEMORY")
            source.backup(copy)
            [(verdict,)] = copy.execute("PRAGMA integrity_check(1)")
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
    except BaseException:  # Control-C too
        os.remove(file)
        raise
