"""Latchkey with another ``verify``: on the ORM as one writes it, or with bcrypt-hashed keys."""

import os
from datetime import timedelta

import bcrypt

import auth
from app import create_app
from models.api_key import ApiKey
from models.base import db, utcnow
from models.user import User


def orm(token, origin):
    """Load the key and its owner, compare, touch, commit."""
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
    if os.environ["ALTERNATIVE"] == "bcrypt":
        return bcrypt.checkpw(token.text.encode(), stored)
    return token.digest == stored


auth.verify = orm
app = create_app()
