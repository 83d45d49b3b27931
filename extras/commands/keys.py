"""flask keys: everybody's API keys."""

import re
from datetime import timedelta

import click
import sqlalchemy as sa
from marshmallow import ValidationError

import tokens
from extras.operator import (
    OperatorGroup,
    as_json,
    database,
    find_user,
    origin,
    read_line,
    show,
    user_option,
)
from models.api_key import ApiKey
from models.database import Condition, db, setting, utcnow
from models.user import User
from schemas.requests import NewKeySchema
from schemas.resources import MODES, KeySchema

# The public part, alone or in a token, of which the end may be missing; or the UUID.
KEY = re.compile(
    r"([a-z]{1,11}_)?(?P<public>[0-9A-Za-z]{12})(…|\.\.\.|_.*)?"
    r"|(?P<id>[0-9A-Fa-f-]{36})"
)
TABLE = [
    "key_public",
    "username",
    "mode",
    "status",
    "created_at",
    "expires_at",
    "last_used_at",
    "name",
]

group = OperatorGroup("keys", help="Everybody's API keys.")


def find_key(text: str) -> ApiKey:
    """The key of this public part, token or UUID. Raises ClickException.

    The error repeats nothing that may be secret.
    """
    match = KEY.fullmatch(text)
    if match is None:
        raise click.ClickException(
            "no such key: name it by lk_ and its 12 characters, its UUID or its token"
        )
    name = match["public"] or match["id"].lower()
    named = sa.or_(ApiKey.key_public == name, ApiKey.id == name)
    key = db.session.scalar(sa.select(ApiKey).where(named))
    if key is None:
        raise click.ClickException(f"no such key: {name} is not in {database()}")
    return key


@group.command("list")
@user_option
@click.option(
    "--expiring",
    "days",
    type=click.IntRange(0, 36500),
    help="Only active keys that expire within so many days; exit status 1 if any do.",
)
@as_json
def list_keys(username: str | None, days: int | None, as_json: bool) -> None:
    """Keys with their owner, status and times."""
    query = sa.select(ApiKey, User.username).join(User)
    query = query.order_by(User.username, ApiKey.created_at)
    if username is not None:
        query = query.where(ApiKey.user_id == find_user(username).id)
    if days is not None:
        soon = utcnow() + timedelta(days=days)
        query = query.where(ApiKey.expires_at.between(utcnow(), soon))
        query = query.where(ApiKey.revoked_at.is_(None))
    rows = []
    for key, owner in db.session.execute(query):
        row = {name: getattr(key, name) for name in KeySchema().fields}
        rows.append(row | {"username": owner})
    show(rows, TABLE, as_json)
    if days is not None and rows:
        raise SystemExit(1)


@group.command("create")
@click.argument("username", metavar="USER")
@click.argument("name")
@click.option("--mode", type=click.Choice(MODES), required=True)
@click.option("--days", type=int, help="Until it expires.")
def create_key(username: str, name: str, mode: str, days: int | None) -> None:
    """Create a key without the user's password; print its token, this once."""
    try:
        wanted = NewKeySchema(exclude=["password"]).load(
            {"name": name, "mode": mode, "expires_in_days": days}
        )
    except ValidationError:
        most = setting("LATCHKEY_MAX_EXPIRY_DAYS")
        raise click.BadParameter(
            "a name has 1 to 100 characters, one of them visible, "
            f"and --days is from 1 to {most}"
        ) from None
    same_name = User.id == find_user(username).id
    # The write locks the user's row: nobody else counts the active keys now.
    lock = sa.update(User).where(same_name, User.suspended_at.is_(None))
    user = db.session.scalar(lock.values(suspended_at=None).returning(User))
    if user is None:
        raise click.ClickException(f"{username} is suspended")
    key = ApiKey.create(user, origin(), reason="operator", **wanted)
    if key is None:
        most = setting("LATCHKEY_MAX_ACTIVE_KEYS")
        raise click.ClickException(f"{username} has {most} active keys already")
    click.echo(key.token)  # before the commit: no key is made whose token is lost
    db.session.commit()


@group.command("revoke")
@click.argument("key", default="")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@user_option
def revoke_keys(key: str, token_stdin: bool, username: str | None) -> None:
    """Revoke a key, or all of a user's, for ever and at once.

    KEY is what people see of it (lk_ and 12 characters), its UUID or its token.
    """
    if [bool(key), token_stdin, username is not None].count(True) != 1:
        raise click.UsageError("one of KEY, --token-stdin and --user is needed")
    condition: Condition
    if username is not None:
        condition = ApiKey.user_id == find_user(username).id
    elif token_stdin:
        condition = ApiKey.id == find_token(read_line().strip()).id
    else:
        condition = ApiKey.id == find_key(key).id
    revoked = ApiKey.revoke(origin(), condition, reason="operator")
    db.session.commit()
    if username is not None:
        click.echo(f"{revoked} keys revoked")
    else:
        click.echo("revoked" if revoked else "was revoked already")


def find_token(text: str) -> ApiKey:
    """The key of this token, if its secret is right too. Raises ClickException."""
    key = find_key(text)
    if key.digest != tokens.digest(text):
        raise click.ClickException(f"no such key: {key.key_public} has another secret")
    return key
