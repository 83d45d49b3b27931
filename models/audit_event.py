"""The audit trail, which outlives users and keys; the throttle counts in it."""

import hashlib
from datetime import datetime, timedelta
from ipaddress import IPv6Network
from math import ceil
from typing import NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Model, Refused, db, setting, utcnow


class Origin(NamedTuple):
    """From where a change was asked for (not the header ``Origin``)."""

    ip: str | None  # canonical (RFC 5952) by extras/gateway.py
    method: str
    path: str


class AuditEvent(Model):
    __tablename__ = "audit_events"
    __table_args__ = (
        sa.Index("ix_audit_events_name", "event", "name_digest", "created_at"),
        sa.Index("ix_audit_events_network", "event", "network", "created_at"),
        sa.Index("ix_audit_events_user", "user_id", "id"),
    )

    # SQLite numbers the rows of an INTEGER only.
    id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True
    )
    created_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)
    event: Mapped[str]
    reason: Mapped[str | None]
    user_id: Mapped[str | None]
    api_key_id: Mapped[str | None]
    key_name: Mapped[str | None]
    key_mode: Mapped[str | None]
    ip: Mapped[str | None]
    method: Mapped[str]
    path: Mapped[str]
    name_digest: Mapped[str | None]  # of a log-in's name
    network: Mapped[str | None]  # of a log-in's address

    @classmethod
    def record(cls, event: str, origin: Origin, **columns: str | None) -> Self:
        """Add a row to the transaction of the change that it tells of."""
        row = cls(event=event, **origin._asdict(), **columns)
        db.session.add(row)
        return row

    @classmethod
    def record_attempt(cls, user_id: str | None, name: str, origin: Origin) -> Self:
        """Add a failed check of a password, before it is checked; the caller commits.

        Refused: ``throttled``, with the seconds to wait, if this name or this network
        has failed too often. Of the name it keeps a digest: people type passwords.
        """
        # One attempt at a time, so that each counts all before it. On SQLite the INSERT
        # locks out other writers.
        if db.engine.name == "postgresql":  # 1: the only such lock
            db.session.execute(sa.select(sa.func.pg_advisory_xact_lock(1)))
        attempt = cls.record(
            "login_failed",
            origin,
            reason="incorrect_password",
            user_id=user_id,
            name_digest=hashlib.sha256(name.encode()).hexdigest(),
            network=network(origin.ip),
        )
        attempt.refuse_if_too_many()
        return attempt

    def refuse_if_too_many(self) -> None:
        """Raise Refused if too many failed; the query flushes this attempt first.

        A refused attempt is not kept, so trying meanwhile makes nobody wait longer.
        Without an address (a unix socket) all count as one.
        """
        window = timedelta(minutes=setting("LATCHKEY_LOGIN_WINDOW_MINUTES"))
        count_recent = (
            sa.select(sa.func.count(), sa.func.min(AuditEvent.created_at))
            .filter_by(event=self.event)
            .where(AuditEvent.created_at > utcnow() - window)
        )
        for same in (
            AuditEvent.name_digest == self.name_digest,
            AuditEvent.network == self.network,
        ):
            failures, first = db.session.execute(count_recent.where(same)).one()
            # This attempt is one of them.
            if failures > setting("LATCHKEY_LOGIN_FAILURES"):
                wait = first + window - utcnow()
                raise Refused("throttled", ceil(wait.total_seconds()))


def network(ip: str | None) -> str | None:
    """What counts as one address: of IPv6 the /64, which one host has for itself."""
    if ip and ":" in ip:
        return str(IPv6Network((ip, 64), strict=False))
    return ip
