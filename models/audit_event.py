"""The audit trail, which outlives users and keys, and the throttle that counts in it."""

from datetime import datetime, timedelta
from math import ceil
from typing import NamedTuple, Self

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Model, Refused, db, utcnow


class Origin(NamedTuple):
    """From where a change was asked for."""

    ip: str | None
    method: str
    path: str


class AuditEvent(Model):
    __tablename__ = "audit_events"
    __table_args__ = (
        sa.Index("ix_audit_events_name", "event", "name_digest", "created_at"),
        sa.Index("ix_audit_events_ip", "event", "ip", "created_at"),
        sa.Index("ix_audit_events_user", "user_id", "id"),
    )

    id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True
    )
    created_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)
    event: Mapped[str] = mapped_column(sa.String(20))
    reason: Mapped[str | None] = mapped_column(sa.String(100))
    user_id: Mapped[str | None] = mapped_column(sa.String(36))
    api_key_id: Mapped[str | None] = mapped_column(sa.String(36))
    key_name: Mapped[str | None] = mapped_column(sa.String(100))
    key_mode: Mapped[str | None] = mapped_column(sa.String(5))
    ip: Mapped[str | None] = mapped_column(sa.String(45))
    method: Mapped[str] = mapped_column(sa.String(20))
    path: Mapped[str] = mapped_column(sa.String(200))
    name_digest: Mapped[str | None] = mapped_column(sa.String(64))  # SHA-256 of the name tried

    @classmethod
    def record(cls, event: str, origin: Origin, **about: str | None) -> Self:
        """Add a row to the transaction of the change that it tells of."""
        row = cls(event=event, **origin._asdict(), **about)
        db.session.add(row)
        return row

    def throttle(self) -> None:
        """Refused: ``throttled``, with the seconds to wait, where the name or the address of this
        attempt had used up its failures before. The attempt is flushed, not committed."""
        window = timedelta(minutes=current_app.config["LATCHKEY_LOGIN_WINDOW_MINUTES"])
        now, most = utcnow(), current_app.config["LATCHKEY_LOGIN_FAILURES"]
        at = AuditEvent.created_at
        failures = sa.select(at).where(AuditEvent.event == self.event, at > now - window)
        for who in (AuditEvent.name_digest == self.name_digest, AuditEvent.ip == self.ip):
            newest = failures.where(who).order_by(at.desc())
            if until := db.session.scalar(newest.offset(most).limit(1)):
                raise Refused("throttled", ceil((until + window - now).total_seconds()))
