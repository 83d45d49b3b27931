"""API keys: created and revoked."""

from datetime import datetime, timedelta
from typing import Self

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Mapped, mapped_column

import tokens
from models.audit_event import AuditEvent, Origin
from models.base import Condition, Model, Refused, db, new_id, utcnow
from models.user import User


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
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None] = mapped_column(index=True)  # set once, for ever
    last_used_at: Mapped[datetime | None]
    last_used_ip: Mapped[str | None] = mapped_column(sa.String(45))
    last_refused_at: Mapped[datetime | None]  # the right secret, dead
    last_mismatch_at: Mapped[datetime | None]  # a wrong secret
    token = ""  # of one just made, in memory only

    @property
    def status(self) -> str:
        alive = "active" if self.expires_at > utcnow() else "expired"
        return "revoked" if self.revoked_at else alive

    @classmethod
    def of(cls, token: tokens.Token) -> Condition:
        """The key with this token, as a condition."""
        return sa.and_(cls.key_public == token.public, cls.digest == token.digest)

    @classmethod
    def active(cls, user: User) -> Condition:
        """The user's active keys, as a condition."""
        return sa.and_(cls.user_id == user.id, cls.revoked_at.is_(None), cls.expires_at > utcnow())

    @classmethod
    def create(
        cls, user: User, origin: Origin, name: str, mode: str, expires_in_days: int | None = None
    ) -> Self:
        """A new key with its ``token``, for one answer to show. Refused: ``limit_reached``.

        ``User.prove`` came first and holds the user's row: concurrent creates count in turn.
        """
        count = db.session.scalar(sa.select(sa.func.count()).where(cls.active(user))) or 0
        if count >= current_app.config["LATCHKEY_MAX_ACTIVE_KEYS"]:
            db.session.commit()  # of nothing but the attempt struck out: the password was right
            raise Refused("limit_reached")
        token = tokens.mint(current_app.config["LATCHKEY_KEY_PREFIX"])
        life = timedelta(expires_in_days or current_app.config["LATCHKEY_DEFAULT_EXPIRY_DAYS"])
        key = cls(id=new_id(), user_id=user.id, name=name, mode=mode, expires_at=utcnow() + life)
        key.key_public, key.digest, key.token = token.public, token.digest, token.text
        db.session.add(key)
        key.audit("created", origin)
        return key

    @classmethod
    def revoke(cls, origin: Origin, *which: Condition, reason: str | None = None) -> int:
        """Kill, for ever, those of ``which`` that are not revoked yet; how many those were.

        The write comes first and takes the lock: of 50 at once, one finds the key unrevoked.
        """
        alive = sa.update(cls).where(*which, cls.revoked_at.is_(None))
        alive = alive.execution_options(synchronize_session=False)
        killed = db.session.scalars(alive.values(revoked_at=utcnow()).returning(cls)).all()
        for key in killed:
            key.audit("revoked", origin, reason)
        if not killed and db.engine.name == "postgresql":
            # Something to commit: a retry after a crash waits for a standby as the first try did.
            db.session.execute(sa.text("SELECT pg_logical_emit_message(true, 'latchkey', '')"))
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
