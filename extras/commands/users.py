"""flask users: who may sign in."""

import re

import click
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from extras.commands.operator import OperatorGroup, origin, read_line
from models.audit_event import AuditEvent
from models.database import db, new_id, utcnow
from models.session import Session
from models.user import User, normalized

NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")  # fits the headers of any proxy
NOT_TYPED = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, half characters


def find_user(name: str) -> User:
    """The user of this name. Raises BadParameter."""
    user = User.by_name(name)
    if user is None:
        raise click.BadParameter(f"no user named {name}")
    return user


def set_new_password(user: User, from_stdin: bool) -> None:
    """Ask for a password, or read it from standard input. Raises BadParameter."""
    db.session.commit()  # no transaction stays open while somebody types
    if from_stdin:
        password = read_line()
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if NOT_TYPED.search(password):
        raise click.BadParameter("a password has no control characters")
    if len(password) < 8:
        raise click.BadParameter("a password has at least 8 characters")
    if len(normalized(password).encode()) > 72:  # bcrypt takes no more
        raise click.BadParameter("a password has at most 72 bytes of UTF-8")
    user.set_password(password)


def commit(event: str, user: User) -> None:
    """Commit a change with its line in the audit trail, and say so."""
    AuditEvent.record(event, origin(), user_id=user.id)
    db.session.commit()
    click.echo(f"{user.username}: {event.replace('_', ' ')}")


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
        raise click.BadParameter("a name has 1 to 64 of a-z, 0-9 and ._@+-")
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
def list_users() -> None:
    """Name, id, state and last sign-in of every user."""
    for user in db.session.scalars(sa.select(User).order_by(User.username)):
        state = "suspended" if user.suspended_at else "active"
        last = user.last_proof_at or "never"
        click.echo(f"{user.username}\t{user.id}\t{state}\t{last}")


@group.command("suspend")
@username_argument
def suspend_user(username: str) -> None:
    """Refuse every session and key of a user, at once."""
    user = find_user(username)
    user.suspended_at = utcnow()
    Session.end(Session.user_id == user.id)
    commit("user_suspended", user)


@group.command("restore")
@username_argument
def restore_user(username: str) -> None:
    """End a suspension; keys that were not revoked and have not expired work again."""
    user = find_user(username)
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
