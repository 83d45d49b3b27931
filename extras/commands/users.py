"""flask users: who may sign in."""

import re

import click
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from extras.operator import (
    OperatorGroup,
    as_json,
    ask_password,
    commit,
    find_user,
    read_line,
    show,
)
from models.database import db, new_id, utcnow
from models.session import Session
from models.user import User, normalized
from schemas.resources import UserSchema

NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")  # fits the headers of any proxy
NOT_TYPED = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, half characters
TABLE = ["username", "suspended_at", "last_proof_at", "created_at", "id"]


def set_new_password(user: User, from_stdin: bool) -> None:
    """Ask for a password, or read it from standard input. Raises BadParameter."""
    db.session.commit()  # no transaction stays open while somebody types
    password = read_line() if from_stdin else ask_password()
    if NOT_TYPED.search(password):
        raise click.BadParameter("a password has no control characters")
    if len(password) < 8:
        raise click.BadParameter("a password has at least 8 characters")
    if len(normalized(password).encode()) > 72:  # bcrypt takes no more
        raise click.BadParameter("a password has at most 72 bytes of UTF-8")
    user.set_password(password)


group = OperatorGroup("users", help="Who may sign in.")
username_argument = click.argument("username")
password_stdin = click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from standard input instead of asking for it.",
)


@group.command("add")
@username_argument
@password_stdin
def add_user(username: str, password_stdin: bool) -> None:
    """Add a user: name of a-z, 0-9 and ._@+-, password of 8 characters to 72 bytes."""
    username = username.lower()
    if not NAME.fullmatch(username):
        raise click.BadParameter(
            "a name has only a-z, 0-9 and ._@+-, at most 64, and no sign comes first"
        )
    taken = click.ClickException(f"there is a user named {username} already")
    if User.by_name(username):
        raise taken
    user = User(id=new_id(), username=username)
    set_new_password(user, password_stdin)
    db.session.add(user)
    try:
        commit("user_added", user)
    except IntegrityError:  # somebody else was faster
        raise taken from None


@group.command("list")
@as_json
def list_users(as_json: bool) -> None:
    """Users, whether they are suspended, and when they last gave their password."""
    users = db.session.scalars(sa.select(User).order_by(User.username))
    fields = [*UserSchema().fields, *TABLE]
    rows = [{name: getattr(user, name) for name in fields} for user in users]
    show(rows, TABLE, as_json)


@group.command("suspend")
@username_argument
def suspend_user(username: str) -> None:
    """Refuse every session and key of a user, at once."""
    user = find_user(username)
    if user.suspended_at:
        click.echo(f"{user.username}: already suspended")
        return
    user.suspended_at = utcnow()
    Session.end(Session.user_id == user.id)
    commit("user_suspended", user)


@group.command("restore")
@username_argument
def restore_user(username: str) -> None:
    """End a suspension; keys that were not revoked and have not expired work again."""
    user = find_user(username)
    if user.suspended_at is None:
        click.echo(f"{user.username}: not suspended")
        return
    user.suspended_at = None
    commit("user_restored", user)


@group.command("password")
@username_argument
@password_stdin
def change_password(username: str, password_stdin: bool) -> None:
    """Set a user's password; ends the user's sessions, not the keys."""
    user = find_user(username)
    set_new_password(user, password_stdin)
    Session.end(Session.user_id == user.id)
    commit("password_changed", user)
