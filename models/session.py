"""Interactive sessions: rows, so that what ends one ends it everywhere."""

from datetime import datetime, timedelta
from typing import Self

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Mapped, contains_eager, mapped_column, relationship

import tokens
from models.base import Condition, Model, db, utcnow
from models.user import User


class Session(Model):
    __tablename__ = "sessions"

    digest: Mapped[bytes] = mapped_column(sa.LargeBinary(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    user: Mapped[User] = relationship()
    token = ""  # of one just started, in memory only

    @classmethod
    def start(cls, user: User) -> Self:
        """A new session with its ``token``, for the one answer that shows it."""
        token = tokens.mint(current_app.config["LATCHKEY_KEY_PREFIX"] + "s")
        life = timedelta(hours=current_app.config["LATCHKEY_SESSION_HOURS"])
        session = cls(digest=token.digest, token=token.text, user=user, expires_at=utcnow() + life)
        db.session.add(session)
        return session

    @classmethod
    def find(cls, token: tokens.Token) -> Self | None:
        """The session of this token, unless it has ended or its user is suspended."""
        live = (cls.expires_at > utcnow(), User.suspended_at.is_(None))
        mine = sa.select(cls).join(cls.user).where(cls.digest == token.digest, *live)
        return db.session.scalar(mine.options(contains_eager(cls.user)))

    @classmethod
    def end(cls, *which: Condition) -> list[str]:
        """Sign out; twice at once is no error. The ids of the users who were signed in."""
        db.session.flush()  # a user's row first: a log-in under way waits for it, or loses
        return list(db.session.scalars(sa.delete(cls).where(*which).returning(cls.user_id)))
