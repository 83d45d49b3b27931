"""An app for each database; Alice owns, Bob is the other, Charlie a stranger."""

import os
import uuid
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
from servers import PASSWORD, Postgres, Server, prepared

from bench.setup import FILL, KEYS, TIMES, USERS, insert
from models.database import db, utcnow

TRAIL = """INSERT INTO audit_events
    (created_at, event, user_id, method, path, ip, name_digest)
    {n} SELECT '2026-01-01 00:00:00', 'login_failed', 'u' || (i % 400), 'POST', '/',
        'a' || i, 'n' || i FROM n"""
SIGNED_IN = """INSERT INTO sessions (digest, user_id, created_at, expires_at)
    {n} SELECT {digest}, 'u' || (i % 400 + 1), {times} FROM n"""


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long tests too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def postgresql():
    """The URL of the PostgreSQL server that the tests share."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    server = Postgres()
    yield server.url
    server.remove()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_url(request, tmp_path_factory):
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
    return f"sqlite:///{tmp_path_factory.mktemp('db')}/latchkey.db"


@pytest.fixture
def new_database_url(database_url, tmp_path):
    """A database with nothing in it, not even tables."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/new.db"
        return
    name = f"new_{uuid.uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        # The path of the URL is the name of the database.
        yield urlsplit(database_url)._replace(path=f"/{name}").geturl()
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def migrated_app(database_url):
    with prepared(database_url) as app:
        yield app


@pytest.fixture
def app(migrated_app):
    with migrated_app.app_context():
        for table in ("api_keys", "sessions", "audit_events"):
            db.session.execute(db.text(f"DELETE FROM {table}"))
        db.session.execute(db.text("UPDATE users SET suspended_at = NULL"))
        others = "DELETE FROM users WHERE username NOT IN ('alice', 'bob', 'charlie')"
        db.session.execute(db.text(others))
        db.session.commit()
    return migrated_app


@pytest.fixture
def sql(app):
    """Look into the database, in an app context of its own."""

    def run(statement, **values):
        with app.app_context():
            result = db.session.execute(db.text(statement), values)
            rows = result.all() if result.returns_rows else []
            db.session.commit()
            return rows

    return run


def crowd(count):
    """So many rows more in each table, of users nobody is; in the open app context."""
    n, (public, digest) = FILL[db.engine.dialect.name]
    for statement in (USERS, KEYS, TRAIL, SIGNED_IN):
        made = statement.format(n=n, public=public, digest=digest, times=TIMES)
        insert(made, count)


def ago(**time):
    """So long ago, as both databases store it."""
    return (utcnow() - timedelta(**time)).isoformat(" ", "microseconds")


def log_in(http, username, password=PASSWORD, ip=None):
    wanted = {"json": {"username": username, "password": password}}
    if ip:
        wanted["environ_overrides"] = {"REMOTE_ADDR": ip}
    return http.post("/api/auth/login", **wanted)


class Person:
    def __init__(self, app, name):
        self.http, self.name = app.test_client(), name
        self.token = log_in(self.http, name).json["data"]["token"]
        with app.app_context():  # tests count the events that they cause themselves
            mine = "DELETE FROM audit_events WHERE event = 'signed_in'"
            db.session.execute(db.text(mine))
            db.session.commit()

    def call(self, method, path, **kwargs):
        headers = {"Authorization": f"Bearer {self.token}", **kwargs.pop("headers", {})}
        return self.http.open(path, method=method, headers=headers, **kwargs)

    def create(self, **wanted):
        wanted = {"name": "script", "mode": "read", "password": PASSWORD, **wanted}
        return self.call("POST", "/api/me/api-keys", json=wanted)

    def key(self, **wanted):
        return self.create(**wanted).json["data"]


@pytest.fixture
def alice(app):
    return Person(app, "alice")


@pytest.fixture
def bob(app):
    return Person(app, "bob")


@pytest.fixture
def verify(app):
    def ask(token, path="/verify", method="GET"):
        headers = {"Authorization": f"Bearer {token}"}
        return app.test_client().open(path, method=method, headers=headers)

    return ask


@pytest.fixture
def serve(app, database_url, tmp_path):
    """Start one more gunicorn over the test's database, as another host would be."""
    started = []

    def start(**environ):
        log = tmp_path / f"gunicorn{len(started)}.log"
        started.append(
            Server(environ.pop("DATABASE_URL", database_url), log, **environ)
        )
        return started[-1]

    yield start
    for server in started:
        server.process.terminate()  # all of them first: each takes its time
    for server in started:
        server.stop()
