"""Every setting, from the environment. Nothing has to be set; a bad value stops the start."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy.pool import NullPool

PORT = r"(?:\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
DRIVER = r"postgres(?:ql)?(?:\+psycopg)?://"
HOST = rf"(?:[^:/@]*(?::[^@]*)?@)?(?:[^][:/?@]*|\[[\da-fA-F:]+\])(?::{PORT})?"
POSTGRES = rf"{DRIVER}{HOST}(?:[/?].*)?"
TCP = {"connect_timeout": 2, "tcp_user_timeout": 2000, "keepalives_idle": 60}  # s, ms, s
PRIMARY = {**TCP, "target_session_attrs": "primary"}  # of several hosts: a standby may be late
DATABASE = rf"sqlite:///(?!:memory:|file:).+|{POSTGRES}"  # in memory, each worker has its own
SETTINGS: dict[str, tuple[Any, Any, Any]] = {
    # name: default, pattern, what it must be
    "DATABASE_URL": ("sqlite:///latchkey.db", DATABASE, "sqlite:///… or postgresql://…"),
    "LATCHKEY_VERIFY_DATABASE_URL": ("", f"({POSTGRES})?", "postgresql://…, a standby"),
    "LATCHKEY_BIND": ("127.0.0.1:8000", f"unix:.+|.+:{PORT}", "host:port or unix:/path"),
    "LATCHKEY_KEY_PREFIX": ("lk", "[a-z]{1,10}", "1 to 10 letters from a to z"),
    "LATCHKEY_PUBLIC_URL": ("", "(https?://[^/?#]+)?", "https://<host>, without a path"),
    # name: default, least, most
    "PORT": (8000, 1, 65535),
    "WEB_CONCURRENCY": (2, 1, 1000),
    "LATCHKEY_SESSION_HOURS": (12, 1, 8760),
    "LATCHKEY_MAX_ACTIVE_KEYS": (5, 1, 1000),
    "LATCHKEY_DEFAULT_EXPIRY_DAYS": (90, 1, 3650),
    "LATCHKEY_MAX_EXPIRY_DAYS": (365, 1, 3650),
    "LATCHKEY_TRUSTED_PROXIES": (0, 0, 10),
    "LATCHKEY_BCRYPT_ROUNDS": (12, 4, 18),
    "LATCHKEY_LOGIN_FAILURES": (10, 1, 1000),
    "LATCHKEY_LOGIN_WINDOW_MINUTES": (15, 1, 1440),
}


def settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Flask's configuration. Raises SystemExit with one line that names the first bad setting."""
    found: dict[str, Any] = {"MAX_CONTENT_LENGTH": 16 * 1024}
    for name, (default, least, most) in SETTINGS.items():
        text, needed = environ.get(name) or str(default), most
        good: Any = re.fullmatch(least if isinstance(default, str) else "[0-9]{1,9}", text)
        if isinstance(default, int):
            good, needed = good and least <= int(text) <= most, f"a number from {least} to {most}"
        if not good:
            raise SystemExit(f"latchkey: {name} must be {needed}")
        found[name] = type(default)(text)
    if found["LATCHKEY_DEFAULT_EXPIRY_DAYS"] > found["LATCHKEY_MAX_EXPIRY_DAYS"]:
        raise SystemExit("latchkey: LATCHKEY_DEFAULT_EXPIRY_DAYS is over LATCHKEY_MAX_EXPIRY_DAYS")
    if found["LATCHKEY_VERIFY_DATABASE_URL"] and found["DATABASE_URL"].startswith("sqlite"):
        raise SystemExit("latchkey: LATCHKEY_VERIFY_DATABASE_URL must be empty with SQLite")
    urls = [found["DATABASE_URL"], found["LATCHKEY_VERIFY_DATABASE_URL"] or found["DATABASE_URL"]]
    return found | engines(*(re.sub(f"^{DRIVER}", "postgresql+psycopg://", url) for url in urls))


def engines(url: str, verify: str) -> dict[str, Any]:
    """Four ways to the database: only the session waits for locks; ``verify`` may be a standby."""
    sqlite = url.startswith("sqlite")
    common = {"url": url, "hide_parameters": True, "pool_pre_ping": not sqlite}
    patient = {**common, "pool_size": 4, "connect_args": {"timeout": 5} if sqlite else PRIMARY}
    hurry = {"timeout": 0.1} if sqlite else {**PRIMARY, "application_name": "latchkey-hasty"}
    hasty = {**common, "connect_args": hurry}
    read = {**hasty, "poolclass": NullPool, "isolation_level": "AUTOCOMMIT"}  # kept by threads
    standby = {**read, "url": verify, "connect_args": {**hurry, "target_session_attrs": "any"}}
    ways = {None: patient, "notes": {**hasty, "pool_size": 1}, "primary": read}
    return {"SQLALCHEMY_BINDS": {**ways, "verify": read if verify == url else standby}}
