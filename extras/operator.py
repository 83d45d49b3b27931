"""What commands share: errors in one line, users, input, the audit trail, tables.

This is no extra: it registers nothing.
"""

import io
import json
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from getpass import GetPassWarning
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from errors import database_code
from models.audit_event import AuditEvent, Origin
from models.database import db, setting
from models.user import User
from schemas.resources import RFC3339

LOCKED = ("SQLITE_BUSY", "55P03")  # by another program, for longer than we wait
NO_TABLES = ("SQLITE_ERROR", "42P01", "42703")  # or they lack a column

user_option = click.option(
    "--user", "username", metavar="NAME", help="Only this one's."
)
as_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON Lines: one object a line, with every field.",
)


class OneLineErrors(click.Command):
    """Tells the operator in one line what the database says."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError:
            raise click.ClickException("an argument is not UTF-8") from None
        except UnicodeDecodeError:
            raise click.ClickException("standard input is not UTF-8") from None
        except SQLAlchemyError as error:
            raise click.ClickException(in_words(error)) from None
        except BrokenPipeError:  # whoever read the output has enough
            raise
        except OSError as error:
            raise click.ClickException(str(error)) from None


class OperatorGroup(AppGroup):
    command_class = OneLineErrors


def in_words(error: SQLAlchemyError) -> str:
    code = database_code(error)
    if code.startswith(LOCKED):
        return "the database is busy: try again"
    if code in NO_TABLES:
        return f"the database {database()} lacks tables: run `flask db upgrade`"
    cause = str(getattr(error, "orig", error)).partition("\n")[0]
    hint = "is DATABASE_URL right, and did `flask db upgrade` run?"
    return f"the database {database()}: {cause} ({hint})"


def database() -> str:
    """DATABASE_URL without user, password and options."""
    return re.sub(r"(?<=://)[^/?@]*@|\?.*", "", setting("DATABASE_URL"))


def find_user(name: str) -> User:
    """The user of this name. Raises BadParameter."""
    user = User.by_name(name)
    if user is None:
        raise click.BadParameter(f"no user named {cell(name)} in {database()}")
    return user


def read_line() -> str:
    """The first line of standard input, without its end and without a BOM."""
    line = sys.stdin.buffer.readline() if sys.stdin else b""
    return line.decode("utf-8-sig").rstrip("\r\n")


def ask_password() -> str:
    """A password that is typed twice and not shown. Raises ClickException."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetPassWarning)
        try:
            typed = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        except GetPassWarning:
            raise click.UsageError("without a terminal use --password-stdin") from None
    return str(typed)


def origin() -> Origin:
    """The command, in place of a request."""
    command = click.get_current_context().command_path
    return Origin(ip=None, method="CLI", path=command)


def commit(event: str, user: User) -> None:
    """Commit a change with its line in the audit trail, and say so."""
    AuditEvent.record(event, origin(), user_id=user.id)
    db.session.commit()
    click.echo(f"{user.username}: {event.replace('_', ' ')}")


def show(rows: Sequence[Mapping[Any, Any]], columns: list[str], as_json: bool) -> None:
    """Print these columns below a header, or every field as JSON Lines."""
    if as_json:
        for row in rows:
            click.echo(json.dumps(dict(row), default=rfc3339))
        return
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may not be in UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    lines = [[name.upper() for name in columns]]
    lines += [[cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def rfc3339(time: datetime) -> str:
    """As the API writes it."""
    return time.strftime(RFC3339)


def cell(value: Any) -> str:
    """On one line; what would move the cursor or turn the text around is escaped."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
