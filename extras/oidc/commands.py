"""flask users link, flask users unlink: who is who at the provider."""

import click
import sqlalchemy as sa

from extras.commands.users import group, username_argument
from extras.oidc.models import Identity
from extras.operator import commit, find_user
from models.database import db
from models.session import Session


@group.command("link")
@username_argument
@click.argument("issuer")
@click.argument("subject")
def link_user(username: str, issuer: str, subject: str) -> None:
    """Whom the provider calls SUBJECT signs in as this user."""
    user = find_user(username)
    db.session.merge(Identity(issuer=issuer, subject=subject, user_id=user.id))
    commit("user_linked", user)


@group.command("unlink")
@username_argument
def unlink_user(username: str) -> None:
    """Nobody signs in as this user by the provider; ends the user's sessions."""
    user = find_user(username)
    db.session.execute(sa.delete(Identity).filter_by(user_id=user.id))
    Session.end(Session.user_id == user.id)
    commit("user_unlinked", user)
