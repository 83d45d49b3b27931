"""People, and how they prove who they are."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import BoundedSemaphore
from typing import Self

import bcrypt
import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Mapped, mapped_column

from models.audit_event import AuditEvent, Origin
from models.base import Model, Refused, db, new_id, utcnow

# A flood of log-ins may take what CPU time is left over (bench/flood.py), and two threads.
hasher = ThreadPoolExecutor(1, "bcrypt", os.nice, (19,))
log_ins = BoundedSemaphore(2)


class User(Model):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(sa.String(64), unique=True)  # lower case, ASCII
    password_hash: Mapped[str] = mapped_column(sa.String(60))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_proof_at: Mapped[datetime | None]  # of the password
    suspended_at: Mapped[datetime | None]

    @classmethod
    def find(cls, username: str) -> Self | None:
        return db.session.scalar(sa.select(cls).where(cls.username == username.lower()))

    def set_password(self, password: str) -> None:
        """Store the bcrypt hash of at most 72 bytes of UTF-8. The caller ends the sessions."""
        salt = bcrypt.gensalt(current_app.config["LATCHKEY_BCRYPT_ROUNDS"])
        self.password_hash = bcrypt.hashpw(password.encode(), salt).decode()

    @classmethod
    def log_in(cls, username: str, password: str, origin: Origin) -> Self:
        """The user of this name and password. Refused: ``bad_credentials``, ``throttled``, or
        ``busy`` where two log-ins are under way: the other threads are for verifications."""
        if not log_ins.acquire(blocking=False):
            raise Refused("busy", 1)
        try:
            return cls.prove(username, password, origin, "bad_credentials")
        finally:
            log_ins.release()

    @classmethod
    def prove(cls, username: str, password: str, origin: Origin, otherwise: str) -> Self:
        """The user of this name and password, in the same time for a name that nobody has.

        The attempt is written down as failed before bcrypt runs, so that concurrent guesses count
        each other on every worker, and is struck out in the caller's transaction when it was right.
        Of the name it keeps a digest: people type passwords as names.
        """
        if db.engine.name == "postgresql":  # one after the other, as SQLite's writers are anyway
            db.session.execute(sa.select(sa.func.pg_advisory_xact_lock(1)))
        user, name = cls.find(username), hashlib.sha256(username.lower().encode()).hexdigest()
        about = {"user_id": user.id if user else None, "reason": "incorrect_password"}
        attempt = AuditEvent.record("login_failed", origin, name_digest=name, **about)
        attempt.throttle()
        db.session.commit()
        nobody = f"$2b${current_app.config['LATCHKEY_BCRYPT_ROUNDS']:02}$" + "." * 53
        stored = user.password_hash if user else nobody
        right = hasher.submit(bcrypt.checkpw, password.encode(), stored.encode()).result()
        # This write takes the lock and looks again: nothing begins with what was changed meanwhile.
        same = (cls.username == username.lower(), cls.password_hash == stored)
        proof = sa.update(cls).where(*same, cls.suspended_at.is_(None)).returning(cls)
        proven = db.session.scalar(proof.values(last_proof_at=utcnow())) if right else None
        if proven is None:
            raise Refused(otherwise)
        db.session.delete(attempt)
        return proven
