"""Who is who at the provider, and what it said when a session began."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Condition, Model, db, utcnow
from models.user import User


class Identity(Model):
    """A user is known by issuer and subject: names and addresses change hands."""

    __tablename__ = "identities"

    issuer: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"))


class ProviderSession(Model):
    """What the provider said of a session; it goes with the session."""

    __tablename__ = "provider_sessions"

    digest: Mapped[bytes] = mapped_column(
        sa.ForeignKey("sessions.digest", ondelete="CASCADE"), primary_key=True
    )
    subject: Mapped[str]
    sid: Mapped[str | None]  # the provider's name of it
    auth_time: Mapped[datetime | None]  # when the person signed in there


def lock_user(condition: Condition) -> User | None:
    """The user, unless suspended; the row is locked until the caller commits."""
    update = (
        sa.update(User)
        .where(condition, User.suspended_at.is_(None))
        .values(last_proof_at=utcnow())
        .returning(User)
    )
    return db.session.scalar(update)
