"""What every model uses: the ORM, times in UTC, ids, and the refusal of a rule."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from flask import current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, registry

Condition = sa.ColumnElement[bool]  # of a WHERE


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC.

    SQLite stores no zone; models/connections.py has PostgreSQL answer in UTC.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(
        self, value: datetime | None, dialect: Any
    ) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


class Model(DeclarativeBase):
    # Mapped[datetime] is a column of this type.
    registry = registry(type_annotation_map={datetime: UTCDateTime})


@dataclass(eq=False)  # with eq an exception could not be hashed
class Refused(Exception):
    """A rule of the domain says no."""

    rule: str  # one of errors.REFUSALS
    # Echoed to the client; of throttled and busy, the seconds for Retry-After.
    value: str | int = ""


# Objects keep their values after a commit: an answer needs no second query.
db = SQLAlchemy(model_class=Model, session_options={"expire_on_commit": False})


def utcnow() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """A random UUID in its canonical text form (RFC 9562, version 4)."""
    return str(uuid.uuid4())


def setting(name: str) -> Any:
    """A setting of the current application, as config.py read it."""
    return current_app.config[name]
