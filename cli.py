"""What an operator does by hand: flask users …, flask keys …, flask prune."""

from datetime import timedelta

import click
import sqlalchemy as sa
from flask import current_app
from flask.cli import AppGroup

import tokens
from models.api_key import ApiKey
from models.audit_event import AuditEvent, Origin
from models.base import Refused, db, new_id, utcnow
from models.session import Session
from models.user import User
from schemas.resources import NewUserSchema

users = AppGroup("users", help="Who may sign in.")
keys = AppGroup("keys", help="Everybody's API keys.")


@sa.event.listens_for(sa.Engine, "handle_error")
def one_line(failure: sa.ExceptionContext) -> None:
    """One line for the operator; where it is no command that fails, there is no context."""
    if click.get_current_context(silent=True):
        why = failure.original_exception
        told = "busy: try again" if isinstance(why, Refused) else f"{why} (is DATABASE_URL right?)"
        raise click.ClickException(f"the database: {told}")


def valid(context: click.Context, parameter: click.Parameter, value: str | bool) -> str:
    """A new user's name or password; a password is read from standard input, or asked for."""
    if isinstance(value, bool):
        value = input() if value else click.prompt("Password", "", True, True, show_default=False)
    if errors := NewUserSchema().validate({parameter.name: value}):
        raise click.BadParameter(", ".join(errors[parameter.name]))
    return value


def existing(context: click.Context, parameter: click.Parameter, name: str | None) -> User | None:
    if name is not None and User.find(name) is None:
        raise click.BadParameter(f"no user named {name}")
    return User.find(name) if name else None


a_user = click.argument("user", callback=existing)
a_password = click.option("--password-stdin", "password", is_flag=True, callback=valid)


def origin() -> Origin:
    return Origin(None, "CLI", click.get_current_context().command_path[:200])


def finish(event: str, user: User) -> None:
    """The change's audit row, the commit, a word to the operator."""
    AuditEvent.record(event, origin(), user_id=user.id)
    db.session.commit()
    click.echo(f"{user.username}: {event.replace('_', ' ')}")


@users.command("add")
@click.argument("username", type=str.lower, callback=valid)
@a_password
def add_user(username: str, password: str) -> None:
    """Add a user. The name: a-z, 0-9 and ._@+-; the password: 8 characters to 72 bytes."""
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
@a_user
def suspend_user(user: User) -> None:
    """Kill every session and key of a user at once."""
    user.suspended_at = utcnow()
    Session.end(Session.user_id == user.id)
    finish("user_suspended", user)


@users.command("restore")
@a_user
def restore_user(user: User) -> None:
    """End a suspension; keys that were not revoked and have not expired work again."""
    user.suspended_at = None
    finish("user_restored", user)


@users.command("password")
@a_user
@a_password
def change_password(user: User, password: str) -> None:
    """Set a user's password; ends the user's sessions, not the keys."""
    user.set_password(password)
    Session.end(Session.user_id == user.id)
    finish("password_changed", user)


@keys.command("list")
@click.option("--user", callback=existing, help="Only this user's.")
def list_keys(user: User | None) -> None:
    """Id, owner, public part, mode, status, last use and name of every key."""
    query = sa.select(ApiKey, User.username).join(User).order_by(User.username, ApiKey.created_at)
    for key, owner in db.session.execute(query.where(User.id == user.id) if user else query):
        columns = (key.id, owner, key.key_public, key.mode, key.status, key.last_used_at or "never")
        click.echo("\t".join(map(str, (*columns, repr(key.name)))))


@keys.command("revoke")
@click.argument("key_id", default="")
@click.option("--token-stdin", is_flag=True, help="Read the token itself from standard input.")
def revoke_key(key_id: str, token_stdin: bool) -> None:
    """Revoke one key, for ever and at once."""
    if token_stdin == bool(key_id):
        raise click.UsageError("one of KEY_ID and --token-stdin is needed")
    text = input().strip() if token_stdin else ""
    token = tokens.parse(text, current_app.config["LATCHKEY_KEY_PREFIX"])
    which = ApiKey.of(token) if token else ApiKey.id == key_id.lower()
    revoked = ApiKey.revoke(origin(), which, reason="operator")
    db.session.commit()
    if not revoked and not db.session.scalar(sa.select(ApiKey.id).where(which)):
        raise click.ClickException("no such key (are the settings those of the service?)")
    click.echo("revoked" if revoked else "was revoked already")


@click.command("prune")
@click.option("--days", default=90, type=click.IntRange(1, 36500), help="How long they are kept.")
def prune(days: int) -> None:
    """Delete expired sessions, and audit rows and dead keys older than so many days."""
    past = utcnow() - timedelta(days=days)
    doomed = [
        sa.delete(Session).where(Session.expires_at <= utcnow()),
        sa.delete(AuditEvent).where(AuditEvent.created_at < past),
        sa.delete(ApiKey).where(sa.or_(ApiKey.revoked_at < past, ApiKey.expires_at < past)),
    ]
    gone = [db.session.connection().execute(each).rowcount for each in doomed]
    told = "{} sessions, {} audit events, {} keys".format(*gone)
    AuditEvent.record("pruned", origin(), reason=told)
    db.session.commit()
    click.echo(f"pruned {told}")
