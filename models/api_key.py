"""API keys: created, verified, revoked."""

import hmac
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Self

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Mapped, mapped_column

import tokens
from models.audit_event import AuditEvent, Origin
from models.base import Model, Refused, db, new_id, utcnow
from models.user import User

MINUTE = timedelta(minutes=1)
NOTED_IN = {None: "last_used_at", "wrong_secret": "last_mismatch_at"}
Verified = Any  # a row of LOOKUP: an immutable view of a key and its owner at this moment


class ApiKey(Model):
    __tablename__ = "api_keys"
    __table_args__ = (sa.Index("ix_api_keys_user", "user_id", "created_at"),)

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(sa.String(100))
    key_public: Mapped[str] = mapped_column(sa.String(12), unique=True)
    digest: Mapped[bytes] = mapped_column(sa.LargeBinary(32))
    mode: Mapped[str] = mapped_column(sa.String(5))  # read, write
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]  # set once, for ever
    last_used_at: Mapped[datetime | None]
    last_used_ip: Mapped[str | None] = mapped_column(sa.String(45))
    last_refused_at: Mapped[datetime | None]  # the right secret, dead
    last_mismatch_at: Mapped[datetime | None]  # a wrong secret

    @property
    def status(self) -> str:
        if self.revoked_at:
            return "revoked"
        return "active" if self.expires_at > utcnow() else "expired"

    @classmethod
    def active(cls, user: User) -> sa.ColumnElement[bool]:
        """The user's active keys, as a condition."""
        return sa.and_(cls.user_id == user.id, cls.revoked_at.is_(None), cls.expires_at > utcnow())

    @classmethod
    def create(
        cls, user: User, origin: Origin, name: str, mode: str, expires_in_days: int | None = None
    ) -> tuple[Self, str]:
        """A new key, and its token, which is shown once. Refused: ``limit_reached``.

        ``User.step_up`` came first and holds the user's row: concurrent creates count in turn.
        """
        count = db.session.scalar(sa.select(sa.func.count()).where(cls.active(user))) or 0
        if count >= current_app.config["LATCHKEY_MAX_ACTIVE_KEYS"]:
            db.session.commit()  # of nothing but the attempt struck out: the password was right
            raise Refused("limit_reached")
        token = tokens.mint(current_app.config["LATCHKEY_KEY_PREFIX"])
        life = timedelta(expires_in_days or current_app.config["LATCHKEY_DEFAULT_EXPIRY_DAYS"])
        key = cls(id=new_id(), user_id=user.id, name=name, mode=mode, expires_at=utcnow() + life)
        key.key_public, key.digest = token.public, token.digest
        db.session.add(key)
        key.audit("created", origin)
        return key, token.text

    @classmethod
    def revoke(
        cls, origin: Origin, *which: sa.ColumnElement[bool], reason: str | None = None
    ) -> int:
        """Kill, for ever, those of ``which`` that are not revoked yet; how many those were.

        The write comes first and takes the lock: of 50 at once, one finds the key unrevoked.
        """
        alive = sa.update(cls).where(*which, cls.revoked_at.is_(None))
        killed = db.session.scalars(alive.values(revoked_at=utcnow()).returning(cls)).all()
        for key in killed:
            key.audit("revoked", origin, reason=reason)
        return len(killed)

    @classmethod
    def revoke_own(cls, user: User, key_id: str, origin: Origin) -> None:
        """Revoke this user's key; a revoked one stays as it is. Refused: ``not_found``."""
        mine = (cls.id == key_id.replace("\0", "?").lower(), cls.user_id == user.id)
        if not cls.revoke(origin, *mine) and not db.session.scalar(sa.select(cls.id).where(*mine)):
            raise Refused("not_found", key_id)

    def audit(self, event: str, origin: Origin, reason: str | None = None) -> None:
        about = {"user_id": self.user_id, "key_name": self.name, "key_mode": self.mode}
        AuditEvent.record(event, origin, api_key_id=self.id, reason=reason, **about)

    @classmethod
    def verify(cls, token: tokens.Token, origin: Callable[[], Origin]) -> Verified | None:
        """The key, if and only if it is good at this moment: one query, and nothing cached."""
        with db.engines["verify"].connect() as connection:
            key = connection.execute(LOOKUP, {"public": token.public}).one_or_none()
            if key is None:
                return None
            reason = refusal(key, token)
            note(connection, key, reason, origin)
            return None if reason else key


LOOKUP = (
    sa.select(*ApiKey.__table__.c, User.username, User.suspended_at)
    .join(User, User.id == ApiKey.user_id)
    .where(ApiKey.key_public == sa.bindparam("public"))
)


def refusal(key: Verified, token: tokens.Token) -> str | None:
    """Why this token does not open this key now, or None when it does."""
    if not hmac.compare_digest(key.digest, token.digest):
        return "wrong_secret"
    if key.revoked_at:
        return "revoked"
    if key.suspended_at:
        return "user_suspended"
    return None if key.expires_at > utcnow() else "expired"


def note(
    connection: sa.Connection, key: Verified, reason: str | None, origin: Callable[[], Origin]
) -> None:
    """Write when a key was used, or refused and why, at most once a minute.

    Of many at once, one finds the old time; a database that is busy or full is no reason to fail.
    """
    name, now = NOTED_IN.get(reason, "last_refused_at"), utcnow()
    last = getattr(key, name)
    if last and last > now - MINUTE:
        return
    came, column = origin(), getattr(ApiKey, name)
    due = (ApiKey.id == key.id, sa.or_(column.is_(None), column <= now - MINUTE))
    values = {name: now} if reason else {name: now, "last_used_ip": came.ip}
    try:
        connection.exec_driver_sql("BEGIN")
        if connection.execute(sa.update(ApiKey).where(*due).values(values)).rowcount and reason:
            about = {"api_key_id": key.id, "user_id": key.user_id, "reason": reason}
            about |= {"key_name": key.name, "key_mode": key.mode, **came._asdict()}
            connection.execute(sa.insert(AuditEvent).values(event="auth_failed", **about))
        connection.exec_driver_sql("COMMIT")
    except sa.exc.DBAPIError as exc:
        connection.invalidate()
        logging.getLogger(__name__).warning("use of key %s not noted: %s", key.id, exc.orig)
