"""Every setting of the core, from the environment. Nothing has to be set.

An extra has its own settings in a schema of its own, and reads it in the same way.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields
from marshmallow.validate import Range, Regexp

INSTANCE = Path(__file__).parent / "instance"
# From 1 to 65535, as a pattern: it is part of others.
PORT_NUMBER = (
    r"([1-9][0-9]{0,3}|[1-5][0-9]{4}"
    r"|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
# In memory each worker would have a database of its own.
SQLITE = r"sqlite:///(?!:memory:|file:)[^?]+"
SCHEME = r"postgres(ql)?(\+psycopg)?://"
HOST = rf"([^][:/?@,]*|\[[0-9a-fA-F:.]+\])(:{PORT_NUMBER})?"
USER = "((%[0-9a-fA-F]{2}|[^%@/?])*@)?"  # and password, percent-encoded
POSTGRESQL = f"{SCHEME}{USER}{HOST}(,{HOST})*([/?].*)?"


def number(default: int, least: int, most: int) -> fields.Integer:
    """A whole number between two bounds, both included."""
    words = f"must be a number from {least} to {most}"
    return fields.Integer(
        load_default=default,
        validate=Range(least, most, error=words),
        error_messages={"invalid": words},
    )


def text(default: str, pattern: str, words: str) -> fields.String:
    """A text that matches the whole pattern."""
    return fields.String(
        load_default=default,
        validate=Regexp(rf"({pattern})\Z", error=f"must be {words}"),
    )


class SettingsSchema(Schema):
    """The environment variables, with their defaults and bounds."""

    DATABASE_URL = text(
        "sqlite:///latchkey.db",
        f"{SQLITE}|{POSTGRESQL}",
        "sqlite:///<path> or postgresql://…",
    )
    PORT = text("", PORT_NUMBER, "a number from 1 to 65535")
    WEB_CONCURRENCY = number(2, 1, 1000)
    LATCHKEY_BIND = text("", rf"unix:.+|.+:{PORT_NUMBER}", "host:port or unix:/path")
    LATCHKEY_PUBLIC_URL = text(
        "", r"(https?://[^/?#]+)?", "https://<host>, without a path"
    )
    LATCHKEY_KEY_PREFIX = text("lk", "[a-z]{1,10}", "1 to 10 letters from a to z")
    LATCHKEY_SESSION_HOURS = number(12, 1, 8760)
    LATCHKEY_MAX_ACTIVE_KEYS = number(5, 1, 1000)
    LATCHKEY_DEFAULT_EXPIRY_DAYS = number(90, 1, 3650)
    LATCHKEY_MAX_EXPIRY_DAYS = number(365, 1, 3650)
    LATCHKEY_BCRYPT_ROUNDS = number(12, 4, 18)
    LATCHKEY_LOGIN_FAILURES = number(10, 1, 1000)
    LATCHKEY_LOGIN_WINDOW_MINUTES = number(15, 1, 1440)


def load_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the core by name. Raises SystemExit as ``read_settings`` does."""
    settings = read_settings(SettingsSchema(), environ)
    if settings["LATCHKEY_DEFAULT_EXPIRY_DAYS"] > settings["LATCHKEY_MAX_EXPIRY_DAYS"]:
        raise SystemExit(
            "latchkey: LATCHKEY_DEFAULT_EXPIRY_DAYS is over LATCHKEY_MAX_EXPIRY_DAYS"
        )
    settings["DATABASE_URL"] = normalized_url(settings["DATABASE_URL"])
    return settings


def read_settings(schema: Schema, environ: Mapping[str, str]) -> dict[str, Any]:
    """These settings. Raises SystemExit with one line that names a bad one.

    White space around a value means nothing; an empty one means the default.
    """
    stripped = {name: value.strip() for name, value in environ.items() if value.strip()}
    try:
        return dict(schema.load(stripped, unknown=EXCLUDE))
    except ValidationError as error:
        name, words = next(iter(error.messages_dict.items()))
        raise SystemExit(f"latchkey: {name} {words[0]}") from None


def normalized_url(url: str) -> str:
    """``sqlite:///<absolute path>``, or ``postgresql://…`` as libpq reads it."""
    if url.startswith("sqlite"):
        return f"sqlite:///{INSTANCE / url.removeprefix('sqlite:///')}"
    return re.sub(SCHEME, "postgresql://", url)
