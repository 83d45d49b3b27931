"""People, and how they prove who they are."""

import unicodedata
from datetime import datetime
from threading import BoundedSemaphore
from typing import Self

import bcrypt
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from models.audit_event import AuditEvent, Origin
from models.database import Model, Refused, db, new_id, setting, utcnow

# A worker process has four threads (gunicorn.conf.py). At most three of them are here:
# two run bcrypt and one waits. So the fourth is always left to verify keys.
running = BoundedSemaphore(2)
admitted = BoundedSemaphore(3)


class User(Model):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(unique=True)  # lower case, ASCII
    password_hash: Mapped[str | None]  # None: no password is right
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_proof_at: Mapped[datetime | None]  # written to lock the row, too
    suspended_at: Mapped[datetime | None]

    @property
    def has_password(self) -> bool:
        return self.password_hash is not None

    @classmethod
    def by_name(cls, username: str) -> Self | None:
        """The user of this name, in any case."""
        name = normalized(username).lower()
        return db.session.scalar(sa.select(cls).filter_by(username=name))

    def set_password(self, password: str) -> None:
        """Store the bcrypt hash of at most 72 bytes. The caller ends the sessions."""
        salt = bcrypt.gensalt(setting("LATCHKEY_BCRYPT_ROUNDS"))
        self.password_hash = bcrypt.hashpw(normalized(password).encode(), salt).decode()

    @classmethod
    def check_password(
        cls, username: str, password: str, origin: Origin, rule: str
    ) -> Self:
        """The user of this name, if the password is right.

        Refused: ``throttled``, ``busy`` or, if it is wrong, ``rule``. The user's row is
        locked until the caller commits. An unknown name takes as long as a known one,
        unless LATCHKEY_BCRYPT_ROUNDS has been changed since.
        """
        if not admitted.acquire(blocking=False):
            raise Refused("busy", 1)
        try:
            with running:
                user = cls.authenticate(username, password, origin)
        finally:
            admitted.release()
        if user is None:
            raise Refused(rule)
        return user

    @classmethod
    def authenticate(cls, username: str, password: str, origin: Origin) -> Self | None:
        """The user, if the password is right; None leaves a failed attempt behind.

        1. Commit the attempt as a failed one, so that concurrent guesses count each
           other on every worker.
        2. Run bcrypt, with nothing locked and no connection in use.
        3. Lock the user's row and look again, whether it has changed meanwhile.
        4. Delete the attempt; the caller commits that, and so ends the lock.
        """
        user = cls.by_name(username)
        user_id = user.id if user else None
        name = normalized(username).lower()
        attempt = AuditEvent.record_attempt(user_id, name, origin)
        db.session.commit()
        # Also for a user without a password.
        stored = (user and user.password_hash) or unmatched_hash()
        if not matches(password, stored):
            return None
        # A password changed meanwhile proves nothing, nor does a suspended user.
        update = (
            sa.update(cls)
            .where(cls.id == user_id, cls.password_hash == stored)
            .where(cls.suspended_at.is_(None))
            .values(last_proof_at=utcnow())
            .returning(cls)
        )
        proven = db.session.scalar(update)
        if proven:
            db.session.delete(attempt)
        return proven


def normalized(text: str) -> str:
    """How passwords and names are compared (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFC", text)


def unmatched_hash() -> str:
    """A hash that no password has, as costly to check as any other."""
    return f"$2b${setting('LATCHKEY_BCRYPT_ROUNDS'):02}$" + "." * 53


def matches(password: str, stored: str) -> bool:
    """Whether the hash is of this password: in NFC, or as typed for version 0.1."""
    spellings = {normalized(password).encode(), password.encode()}
    return any(
        bcrypt.checkpw(spelling, stored.encode())
        for spelling in spellings
        if len(spelling) <= 72
    )
