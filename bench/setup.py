"""What a measurement needs: databases full of keys, and servers to be measured."""

import contextlib
import os
import socket
import subprocess
import sys
import time

import bcrypt
import flask_migrate
import psutil
import sqlalchemy as sa
from servers import free_port

import tokens
from app import create_app
from bench import ROOT
from models.database import db, new_id, utcnow

ROWS_AT_ONCE = 20_000  # a statement may take as long as one of a session
TIMES = "'2026-01-01 00:00:00', '2099-01-01 00:00:00'"
FILL = {  # keys nobody asks for: a user for every five
    "sqlite": (
        "WITH RECURSIVE n(i) AS "
        "(SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last) ",
        ("hex(randomblob(6))", "randomblob(32)"),
    ),
    "postgresql": (
        "WITH n(i) AS (SELECT generate_series(CAST(:first AS int), :last)) ",
        ("left(md5(random()::text), 12)", "sha256(random()::text::bytea)"),
    ),
}
USERS = """INSERT INTO users (id, username, password_hash, created_at)
    {n} SELECT 'u' || i, 'user' || i, '', '2026-01-01 00:00:00' FROM n"""
KEYS = """INSERT INTO api_keys
    (id, user_id, name, key_public, digest, mode, created_at, expires_at)
    {n} SELECT 'k' || i, 'u' || ((i + 4) / 5), 'script', {public}, {digest}, 'read',
        {times} FROM n"""
ASKED = """INSERT INTO api_keys
    (id, user_id, name, key_public, digest, mode, created_at, expires_at, revoked_at)
    VALUES (:id, 'u1', 'script', :public, :digest, 'read', :now,
        '2099-01-01 00:00:00', :revoked)"""


def fill(url, count, asked, revoked=False, hashed=tokens.digest):
    """A database with ``count`` keys and ``asked`` more; the tokens of those."""
    app = create_app({"DATABASE_URL": url})
    with app.app_context():
        flask_migrate.upgrade(ROOT / "migrations")
        if not db.session.scalar(sa.text("SELECT count(*) FROM api_keys")):
            n, (public, digest) = FILL[db.engine.dialect.name]
            keys = KEYS.format(n=n, public=public, digest=digest, times=TIMES)
            insert(USERS.format(n=n), count // 5 + 1)
            insert(keys, count)
        new = [tokens.new_token("lk") for _ in range(asked)]
        rows = [
            {
                "id": new_id(),
                "public": token.public,
                "digest": hashed(token.text),
                "now": utcnow(),
                "revoked": utcnow() if revoked else None,
            }
            for token in new
        ]
        db.session.execute(sa.text(ASKED), rows)
        db.session.commit()
        with db.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("ANALYZE"))
        db.engine.dispose()
    return [token.text for token in new]


def insert(statement, count):
    """Insert ``count`` rows, some at a time: each statement has a time limit."""
    for first in range(1, count + 1, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE - 1, count)
        db.session.execute(sa.text(statement), {"first": first, "last": last})


def forget(app):
    """Let the next use of each key be the first of its minute, which is noted."""
    never = "last_used_at = NULL, last_refused_at = NULL"
    with app.app_context():
        db.session.execute(sa.text(f"UPDATE api_keys SET {never} WHERE user_id = 'u1'"))
        db.session.commit()


def bcrypt_hash(text):
    return bcrypt.hashpw(text.encode(), bcrypt.gensalt(12))


class Program:
    """A program that serves on a port of 127.0.0.1, in the root of the project."""

    def __init__(self, port, command, log, **environ):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        kept = ("PATH", "HOME", "LANG", "TZ")
        clean = {name: os.environ[name] for name in kept if name in os.environ}
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=clean | environ, stdout=out, stderr=out
            )
        for _ in range(600):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port)),
            ):
                return
            time.sleep(0.1)
        self.stop()
        raise SystemExit(f"{command[-1]} does not start, see {log}")

    def processes(self):
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def cpu(self):
        """Seconds of CPU that its processes have used."""
        return sum(self.cpu_by_process().values())

    def cpu_by_process(self):
        return {each.pid: sum(each.cpu_times()[:2]) for each in self.processes()}

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Server(Program):
    """An application under the gunicorn settings that ship; workers are measured."""

    def __init__(self, application, log, *options, python=sys.executable, **environ):
        port = free_port()
        command = [python, "-m", "gunicorn", *options, application]
        bind = f"127.0.0.1:{port}"
        super().__init__(port, command, log, LATCHKEY_BIND=bind, **environ)

    def processes(self):
        return psutil.Process(self.process.pid).children()
