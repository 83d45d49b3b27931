"""Latchkey with one thing done in another way: ALTERNATIVE in the environment says it.

``orm``: /verify is a Flask view, on the ORM as one writes it. ``bcrypt``: the same with
keys that are hashed by bcrypt. ``cache``: a verdict may be 20 ms old.
"""

import os
import time
from datetime import timedelta

import bcrypt
from flask import abort, request

import tokens
from app import create_app
from models.api_key import ApiKey
from models.database import db, utcnow
from models.user import User
from models.verification import Verifier
from origin import bearer_token
from verify import SCOPES

ALTERNATIVE = os.environ["ALTERNATIVE"]


def verify():
    """Load the key and its owner, compare, note the use, commit."""
    token = tokens.parse(bearer_token(request.environ), "lk") or abort(401)
    key = db.session.scalar(db.select(ApiKey).where(ApiKey.key_public == token.public))
    if key is None or not matches(token, key.digest):
        abort(401)
    user = db.session.get(User, key.user_id)
    if key.revoked_at or user.suspended_at or key.expires_at <= utcnow():
        abort(401)
    if key.last_used_at is None or key.last_used_at < utcnow() - timedelta(minutes=1):
        key.last_used_at, key.last_used_ip = utcnow(), request.remote_addr
        db.session.commit()
    return "", {
        "X-User-Id": user.id,
        "X-User-Name": user.username,
        "X-Key-Id": key.id,
        "X-Key-Scopes": SCOPES[key.mode],
    }


def matches(token, stored):
    if ALTERNATIVE == "bcrypt":
        db.session.rollback()  # others may have the connection meanwhile
        return bcrypt.checkpw(token.text.encode(), stored)
    return token.digest == stored


def cached(read):
    """What a Verifier reads, kept for 20 ms."""
    rows = {}

    def read_or_remember(verifier, public):
        until, row = rows.get(public, (0, None))
        if time.monotonic() > until:
            row = read(verifier, public)
            rows[public] = time.monotonic() + 0.02, row
        return row

    return read_or_remember


app = create_app()
if ALTERNATIVE == "cache":
    Verifier.read = cached(Verifier.read)
else:
    del app.wsgi_app  # Flask's own, with no VerifyMiddleware in front of it
    app.add_url_rule("/verify", view_func=verify)
