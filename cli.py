"""What an operator does by hand: flask users …, flask keys …, flask prune."""

from datetime import timedelta
from functools import partial
from typing import Any

import click
import sqlalchemy as sa
from flask.cli import AppGroup, with_appcontext
from marshmallow import ValidationError

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


def checked(**values: str) -> Any:
    try:
        return NewUserSchema().load(values)
    except ValidationError as exc:
        raise click.ClickException(str(exc)) from None


def read_password(context: click.Context, option: click.Parameter, from_stdin: bool) -> str:
    ask = partial(click.prompt, "Password", hide_input=True, confirmation_prompt=True)
    return str(checked(password=input() if from_stdin else ask())["password"])


def existing(name: str) -> User:
    if (user := User.find(name)) is None:
        raise click.ClickException(f"no user named {name}")
    return user


a_name = click.argument("name")
a_password = click.option(
    "--password-stdin", "password", is_flag=True, callback=read_password, help="Do not ask for it."
)


def finish(event: str, user: User) -> None:
    """The change, its audit row, the commit, a word to the operator."""
    AuditEvent.record(event, origin(), user_id=user.id)
    db.session.commit()
    click.echo(f"{user.username}: {event.replace('_', ' ')}")


@users.command("add")
@a_name
@a_password
def add_user(name: str, password: str) -> None:
    """Add a user."""
    user = User(id=new_id(), **checked(username=name.lower()))
    if User.find(name):
        raise click.ClickException(f"there is a user named {name} already")
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
def suspend_user(name: str) -> None:
    """Kill every session and key of a user at once."""
    user = existing(name)
    user.suspended_at = utcnow()
    Session.end(Session.user_id == user.id)
    finish("user_suspended", user)


@users.command("restore")
@a_name
def restore_user(name: str) -> None:
    """End a suspension; keys that were not revoked and have not expired work again."""
    user = existing(name)
    user.suspended_at = None
    finish("user_restored", user)


@users.command("password")
@a_name
@a_password
def change_password(name: str, password: str) -> None:
    """Set a user's password; ends the user's sessions, not the keys."""
    user = existing(name)
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
        token = tokens.parse(text := input().strip(), text.partition("_")[0])
        which = ApiKey.digest == (token.digest if token else b"")
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
    now, past = utcnow(), utcnow() - timedelta(days=days)
    sessions, events = Session.expires_at <= now, AuditEvent.created_at < past
    dead = sa.or_(ApiKey.revoked_at < past, ApiKey.expires_at < past)
    doomed = ((Session, sessions), (AuditEvent, events), (ApiKey, dead))
    gone: list[Any] = [db.session.execute(sa.delete(of).where(which)) for of, which in doomed]
    told = "{} sessions, {} audit events, {} keys".format(*(result.rowcount for result in gone))
    AuditEvent.record("pruned", origin(), reason=told)
    db.session.commit()
    click.echo(f"pruned {told}")
