"""API keys: creating, listing and revoking."""

from datetime import datetime, timedelta
from typing import Self

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

import tokens
from models.audit_event import AuditEvent, Origin
from models.database import Condition, Model, Refused, db, new_id, setting, utcnow
from models.user import User


class ApiKey(Model):
    __tablename__ = "api_keys"
    __table_args__ = (sa.Index("ix_api_keys_user", "user_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"))
    name: Mapped[str]
    key_public: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[bytes]
    mode: Mapped[str]  # read, write
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    # Never changed or cleared once it is set.
    revoked_at: Mapped[datetime | None] = mapped_column(index=True)
    last_used_at: Mapped[datetime | None]
    last_used_ip: Mapped[str | None]
    last_refused_at: Mapped[datetime | None]  # right secret, but refused
    last_mismatch_at: Mapped[datetime | None]  # wrong secret
    token = ""  # set by create() only; no column, but the constructor takes it too

    @property
    def status(self) -> str:
        if self.revoked_at:
            return "revoked"
        return "active" if self.expires_at > utcnow() else "expired"

    @classmethod
    def active_of(cls, user: User) -> Condition:
        """The condition that a key is this user's and its ``status`` is active."""
        return sa.and_(
            cls.user_id == user.id,
            cls.revoked_at.is_(None),
            cls.expires_at > utcnow(),
        )

    @classmethod
    def list_of(cls, user: User) -> sa.Select[Self]:
        """The query for a user's keys: active ones first, then newest first."""
        return (
            sa.select(cls)
            .where(cls.user_id == user.id)
            .order_by(cls.active_of(user).desc(), cls.created_at.desc(), cls.id)
        )

    @classmethod
    def create(
        cls,
        user: User,
        origin: Origin,
        name: str,
        mode: str,
        expires_in_days: int | None = None,
        reason: str | None = None,
    ) -> Self | None:
        """A new key with its ``token``, or None: the user has too many active ones."""
        # The caller has locked the user's row, as User.check_password does: nobody else
        # counts now.
        count = sa.select(sa.func.count()).where(cls.active_of(user))
        if db.session.scalars(count).one() >= setting("LATCHKEY_MAX_ACTIVE_KEYS"):
            return None
        token = tokens.new_token(setting("LATCHKEY_KEY_PREFIX"))
        days = expires_in_days or setting("LATCHKEY_DEFAULT_EXPIRY_DAYS")
        key = cls(
            id=new_id(),
            user_id=user.id,
            name=name,
            mode=mode,
            key_public=token.public,
            digest=token.digest,
            expires_at=utcnow() + timedelta(days=days),
            token=token.text,
        )
        db.session.add(key)
        key.audit("created", origin, reason)
        return key

    @classmethod
    def revoke(
        cls,
        origin: Origin,
        *conditions: Condition,
        reason: str | None = None,
    ) -> int:
        """Revoke, for ever, the keys that meet the conditions; returns how many.

        A revoked key keeps its first time and is not counted. The write comes first and
        locks the rows: of concurrent calls exactly one revokes.
        """
        update = (
            sa.update(cls)
            .where(*conditions, cls.revoked_at.is_(None))
            .values(revoked_at=utcnow())
            .returning(cls)
        )
        revoked = db.session.scalars(update).all()
        for key in revoked:
            key.audit("revoked", origin, reason)
        # Something harmless is always written, so that the commit waits for the disk
        # and the standby. A repeated call changes no row and would wait for nothing,
        # although the first call may have been cut off while it waited.
        forced_write = "PRAGMA user_version = 0"  # SQLite writes the same value too
        if db.engine.name == "postgresql":  # a record of the write-ahead log
            forced_write = "SELECT pg_logical_emit_message(true, 'latchkey', '')"
        db.session.execute(sa.text(forced_write))
        return len(revoked)

    @classmethod
    def revoke_own(cls, user: User, key_id: str, origin: Origin) -> None:
        """Revoke this user's key. Refused: ``not_found``, also for somebody else's."""
        # An id is printable ASCII; PostgreSQL cannot even be asked for a NUL.
        if not (key_id.isascii() and key_id.isprintable()):
            raise Refused("not_found", key_id)
        own = sa.and_(cls.id == key_id.lower(), cls.user_id == user.id)
        revoked = cls.revoke(origin, own)
        # 0: it was revoked already, or it is not this user's key.
        if revoked == 0 and db.session.scalar(sa.select(cls.id).where(own)) is None:
            raise Refused("not_found", key_id)

    def audit(self, event: str, origin: Origin, reason: str | None) -> None:
        AuditEvent.record(
            event,
            origin,
            reason=reason,
            api_key_id=self.id,
            user_id=self.user_id,
            key_name=self.name,
            key_mode=self.mode,
        )
