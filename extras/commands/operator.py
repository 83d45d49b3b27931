"""What every command needs: errors in one line, standard input, the audit's origin."""

import sys
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from errors import database_code
from models.audit_event import Origin

LOCKED = ("SQLITE_BUSY", "55P03")  # by another program, for longer than we wait


class OneLineErrors(click.Command):
    """Tells the operator in one line what the database says."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError:
            raise click.ClickException("an argument is not UTF-8") from None
        except SQLAlchemyError as error:
            if database_code(error).startswith(LOCKED):
                raise click.ClickException("the database is busy: try again") from None
            cause = str(getattr(error, "orig", error)).partition("\n")[0]
            raise click.ClickException(
                f"the database: {cause} "
                "(is DATABASE_URL right, and did `flask db upgrade` run?)"
            ) from None


class OperatorGroup(AppGroup):
    command_class = OneLineErrors


def read_line() -> str:
    """The first line of standard input, without its end and without a BOM."""
    line = sys.stdin.buffer.readline()
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException("standard input is not UTF-8") from None


def origin() -> Origin:
    """The command, in place of a request."""
    command = click.get_current_context().command_path
    return Origin(ip=None, method="CLI", path=command)
