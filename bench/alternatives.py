"""Latchkey with another way of doing one thing; ALTERNATIVE in the environment says which.

``orm``: verification on the ORM as one writes it. ``bcrypt``: the same with bcrypt-hashed keys.
``waiting``: writers wait for each other as SQLite has them wait, not in a queue.
"""

import os
from datetime import timedelta

import bcrypt
import routes.verify
import sqlalchemy as sa

import tokens
from app import create_app
from models.api_key import ApiKey
from models.database import db, take_turns, utcnow
from models.user import User

ALTERNATIVE = os.environ["ALTERNATIVE"]


def orm(text, origin):
    """Load the key and its owner, compare, touch, commit."""
    token = tokens.parse(text, "lk")
    key = db.session.scalar(db.select(ApiKey).where(ApiKey.key_public == token.public))
    if key is None or not matches(token, key.digest):
        return None
    user = db.session.get(User, key.user_id)
    if key.revoked_at or user.suspended_at or key.expires_at <= utcnow():
        return None
    if key.last_used_at is None or key.last_used_at < utcnow() - timedelta(minutes=1):
        key.last_used_at, key.last_used_ip = utcnow(), origin().ip
        db.session.commit()
    key.username = user.username
    return key


def matches(token, stored):
    if ALTERNATIVE == "bcrypt":
        return bcrypt.checkpw(token.text.encode(), stored)
    return token.digest == stored


if ALTERNATIVE == "waiting":
    sa.event.remove(sa.Engine, "before_cursor_execute", take_turns)
else:
    routes.verify.api_key = orm
app = create_app()
