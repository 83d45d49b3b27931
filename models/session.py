"""Interactive sessions: rows, so that what ends one ends it everywhere."""

from datetime import datetime, timedelta
from typing import Self

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

import tokens
from models.database import Condition, Model, db, setting, utcnow
from models.user import User


class Session(Model):
    __tablename__ = "sessions"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    user: Mapped[User] = relationship(lazy="joined")  # so that by_token needs one query
    token = ""  # set by start() only; no column, but the constructor takes it too

    @classmethod
    def start(cls, user: User) -> Self:
        """A new session with its ``token``, for the one answer that shows it."""
        token = tokens.new_token(setting("LATCHKEY_KEY_PREFIX") + "s")
        session = cls(
            digest=token.digest,
            user=user,
            expires_at=utcnow() + timedelta(hours=setting("LATCHKEY_SESSION_HOURS")),
            token=token.text,
        )
        db.session.add(session)
        return session

    @classmethod
    def by_token(cls, text: str) -> Self | None:
        """The session of this token, unless it has ended or its user is suspended."""
        token = tokens.parse(text, setting("LATCHKEY_KEY_PREFIX") + "s")
        session = db.session.get(cls, token.digest) if token else None
        if session and session.expires_at > utcnow() and not session.user.suspended_at:
            return session
        return None

    @classmethod
    def end(cls, *conditions: Condition) -> list[str]:
        """End the sessions that meet the conditions; returns their users' ids.

        A caller that has changed the user (a new password, a suspension) needs that
        UPDATE sent first: its lock keeps a log-in from starting a session meanwhile.
        """
        db.session.flush()
        delete = sa.delete(cls).where(*conditions).returning(cls.user_id)
        return list(db.session.scalars(delete))
