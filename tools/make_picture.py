"""Make docs/account-page.png: the account page of a database made for this picture.

python tools/make_picture.py    needs requirements-dev.txt and Debian's chromium
"""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from flask import Flask
from flask_migrate import upgrade
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for the imports below, which are Latchkey's own

from app import create_app  # noqa: E402
from models.api_key import ApiKey  # noqa: E402
from models.audit_event import AuditEvent, Origin  # noqa: E402
from models.database import db, utcnow  # noqa: E402
from models.user import User  # noqa: E402

TARGET = ROOT / "docs/account-page.png"
NAME = "alice"
WORDS = "correct horse battery"  # her password
OFFICE = "203.0.113.24"
SERVER = "198.51.100.7"
STRANGER = "192.0.2.81"
# Name, mode, and the ages: of the key in days, of its last use in minutes.
KEYS = [
    ("Old laptop", "write", 82.81, None),
    ("Nightly backup", "read", 80.12, 9 * 60),
    ("CI: deploy to production", "write", 46.93, 12),
    ("Grafana", "read", 31.04, 0),
    ("Home Assistant", "read", 6.87, None),
]


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with TemporaryDirectory() as home:
        url = f"sqlite:///{home}/latchkey.db"
        app = create_app({"DATABASE_URL": url, "LATCHKEY_BCRYPT_ROUNDS": "4"})
        with app.app_context():
            upgrade(str(ROOT / "migrations"))
            fill()
        with served(app) as address:
            take_picture(address)


def fill() -> None:
    """Alice, her keys, and what happened to them."""
    user = User(username=NAME)
    user.set_password(WORDS)
    db.session.add(user)
    db.session.flush()
    for name, mode, age_in_days, used_minutes_ago in KEYS:
        key = ApiKey.create(user, origin(OFFICE, "POST"), name=name, mode=mode)
        if key is None:
            raise RuntimeError("too many keys for one user")
        key.created_at = utcnow() - timedelta(days=age_in_days)
        key.expires_at -= timedelta(days=age_in_days)
        happened(key.created_at)
        if used_minutes_ago is not None:
            key.last_used_at = utcnow() - timedelta(minutes=used_minutes_ago)
            key.last_used_ip = SERVER
    lost = db.select(ApiKey).filter_by(name="Old laptop")
    key = db.session.scalars(lost).one()
    ApiKey.revoke(origin(OFFICE, "DELETE"), ApiKey.id == key.id)
    happened(utcnow() - timedelta(hours=28))
    key.audit("auth_failed", origin(STRANGER, "GET"), "revoked")
    happened(utcnow() - timedelta(hours=3))
    db.session.commit()


def origin(ip: str, method: str) -> Origin:
    return Origin(ip, method, "/verify" if method == "GET" else "/api/me/api-keys")


def happened(at: datetime) -> None:
    """Set the time of the newest audit event."""
    db.session.flush()
    newest = db.select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)
    db.session.scalars(newest).one().created_at = at


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The address at which a thread serves the app."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def take_picture(address: str) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(
            viewport={"width": 1200, "height": 840},
            color_scheme="light",
            timezone_id="UTC",
        )
        page.goto(address)
        page.get_by_label("User name").fill(NAME)
        page.get_by_label("Password", exact=True).fill(WORDS)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Page 1 of 1").wait_for()
        page.screenshot(path=TARGET)
        browser.close()


if __name__ == "__main__":
    main()
