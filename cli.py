"""What an operator does by hand: flask users …, flask keys …, flask prune."""

from datetime import timedelta
from typing import Any

import click
import sqlalchemy as sa
from flask.cli import AppGroup, with_appcontext

import tokens
from models.api_key import ApiKey
from models.audit_event import AuditEvent, Origin
from models.base import db, new_id, utcnow
from models.session import Session
from models.user import User
from schemas.resources import NewUserSchema

users = AppGroup("users", help="Who may sign in.")
keys = AppGroup("keys", help="Everybody's API keys.")


def origin() -> Origin:
    return Origin(None, "CLI", click.get_current_context().command_path[:200])


def valid(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if errors := NewUserSchema().validate({parameter.name: value}):
        raise click.BadParameter(", ".join(errors[parameter.name]))
    return value


def read_password(context: click.Context, option: click.Parameter, from_stdin: bool) -> str:
    ask: Any = {"hide_input": True, "confirmation_prompt": True}
    return valid(context, option, input() if from_stdin else click.prompt("Password", **ask))


a_name = click.argument("username", type=str.lower, callback=valid)
a_password = click.option(
    "--password-stdin", "password", is_flag=True, callback=read_password, help="Do not ask for it."
)


def existing(username: str) -> User:
    if (user := User.find(username)) is None:
        raise click.ClickException(f"no user named {username}")
    return user


def finish(event: str, user: User) -> None:
    """The change's audit row, the commit, a word to the operator."""
    AuditEvent.record(event, origin(), user_id=user.id)
    db.session.commit()
    click.echo(f"{user.username}: {event.replace('_', ' ')}")


@users.command("add")
@a_name
@a_password
def add_user(username: str, password: str) -> None:
    """Add a user."""
    if User.find(username):
        raise click.ClickException(f"there is a user named {username} already")
    user = User(id=new_id(), username=username)
    user.set_password(password)
    db.session.add(user)
    finish("user_added", user)


@users.command("list")
def list_users() -> None:
    """Name, id, state and last sign-in of every user."""
    for user in db.session.scalars(sa.select(User).order_by(User.username)):
        state = "suspended" if user.suspended_at else "active"
        click.echo(f"{user.username}\t{user.id}\t{state}\t{user.last_proof_at or 'never'}")


@users.command("suspend")
@a_name
def suspend_user(username: str) -> None:
    """Kill every session and key of a user at once."""
    user = existing(username)
    user.suspended_at = utcnow()
    Session.end(Session.user_id == user.id)
    finish("user_suspended", user)


@users.command("restore")
@a_name
def restore_user(username: str) -> None:
    """End a suspension; keys that were not revoked and have not expired work again."""
    user = existing(username)
    user.suspended_at = None
    finish("user_restored", user)


@users.command("password")
@a_name
@a_password
def change_password(username: str, password: str) -> None:
    """Set a user's password; ends the user's sessions, not the keys."""
    user = existing(username)
    user.set_password(password)
    Session.end(Session.user_id == user.id)
    finish("password_changed", user)


@keys.command("list")
@click.option("--user", "name", help="Only this user's.")
def list_keys(name: str | None) -> None:
    """Id, owner, public part, mode, status, last use and name of every key."""
    query = sa.select(ApiKey, User.username).join(User).order_by(User.username, ApiKey.created_at)
    whose = [User.id == existing(name).id] if name else []
    for key, owner in db.session.execute(query.where(*whose)):
        columns = (key.id, owner, key.key_public, key.mode, key.status, key.last_used_at or "never")
        click.echo("\t".join(map(str, (*columns, repr(key.name)))))


@keys.command("revoke")
@click.argument("key_id", default="")
@click.option("--token-stdin", is_flag=True, help="Read the token itself from standard input.")
def revoke_key(key_id: str, token_stdin: bool) -> None:
    """Revoke one key, for ever and at once."""
    which = ApiKey.id == key_id.lower()
    if token_stdin:
        which = ApiKey.digest == tokens.digest(input().strip())
    revoked = ApiKey.revoke(origin(), which, reason="operator")
    db.session.commit()
    if not revoked and not db.session.scalar(sa.select(ApiKey.id).where(which)):
        raise click.ClickException("no such key")
    click.echo("revoked" if revoked else "was revoked already")


@click.command("prune")
@click.option("--days", default=90, type=click.IntRange(1, 36500), help="How long they are kept.")
@with_appcontext
def prune(days: int) -> None:
    """Delete expired sessions, and audit rows and dead keys older than so many days."""
    past = utcnow() - timedelta(days=days)
    dead = sa.or_(ApiKey.revoked_at < past, ApiKey.expires_at < past)
    doomed = {Session: Session.expires_at <= utcnow(), AuditEvent: AuditEvent.created_at < past}
    gone: list[Any] = [
        db.session.execute(sa.delete(of).where(which))
        for of, which in (doomed | {ApiKey: dead}).items()
    ]
    told = "{} sessions, {} audit events, {} keys".format(*(result.rowcount for result in gone))
    AuditEvent.record("pruned", origin(), reason=told)
    db.session.commit()
    click.echo(f"pruned {told}")
