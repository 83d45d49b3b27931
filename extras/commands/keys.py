"""flask keys: everybody's API keys."""

import click
import sqlalchemy as sa

import tokens
from extras.commands.operator import OperatorGroup, origin, read_line
from extras.commands.users import find_user
from models.api_key import ApiKey
from models.database import Condition, db, setting
from models.user import User

group = OperatorGroup("keys", help="Everybody's API keys.")


@group.command("list")
@click.option("--user", "username", help="Only this user's.")
def list_keys(username: str | None) -> None:
    """Id, owner, public part, mode, status, last use and name of every key."""
    query = sa.select(ApiKey, User.username).join(User)
    if username:
        query = query.where(User.id == find_user(username).id)
    for key, owner in db.session.execute(query.order_by(User.username, ApiKey.id)):
        click.echo(
            f"{key.id}\t{owner}\t{key.key_public}\t{key.mode}\t{key.status}"
            f"\t{key.last_used_at or 'never'}\t{key.name!r}"
        )


@group.command("revoke")
@click.argument("key_id", default="")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
def revoke_key(key_id: str, token_stdin: bool) -> None:
    """Revoke one key, for ever and at once."""
    if token_stdin == bool(key_id):
        raise click.UsageError("one of KEY_ID and --token-stdin is needed")
    condition: Condition = ApiKey.id == key_id.lower()
    if token_stdin:
        condition = has_token(read_line())
    revoked = ApiKey.revoke(origin(), condition, reason="operator")
    db.session.commit()
    if revoked:
        click.echo("revoked")
    elif db.session.scalar(sa.select(ApiKey.id).where(condition)):
        click.echo("was revoked already")
    else:
        raise click.ClickException(
            "no such key (are the settings those of the service?)"
        )


def has_token(text: str) -> Condition:
    token = tokens.parse(text.strip(), setting("LATCHKEY_KEY_PREFIX"))
    if token is None:
        raise click.ClickException("no such key: this is no token")
    return sa.and_(ApiKey.key_public == token.public, ApiKey.digest == token.digest)
