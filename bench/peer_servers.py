"""What bench/peers.py compares: installed, filled with keys, and started."""

import contextlib
import http.client
import json
import subprocess
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from servers import Postgres, free_port, wait_for

from bench import ROOT
from bench.setup import Program, Server, bcrypt_hash, fill

PINNED = Path(__file__).parent / "peers.txt"
PEERS = Path(sys.prefix, "peers")
PYTHON = PEERS / "bin/python"
NEEDED = "# What they need."  # begins the packages of no interest here
UNKNOWN = ["unknown"]
FEW = 8  # keys that are asked where each takes 0.2 s


class Calls(NamedTuple):
    """How one is asked whether a token is good, and how its holder revokes it."""

    verify: str
    scheme: str = "Bearer"  # before the token in Authorization
    revoke: str = ""


LATCHKEY = Calls("/verify", revoke="/oauth/revoke")
EMPTY_DJANGO = Calls("/empty")
API_KEY = Calls("/api-key/verify", "Api-Key", "/api-key/revoke")
KNOX = Calls("/knox/verify", "Token", "/knox/revoke")
OPENBAO = Calls("/v1/auth/token/lookup-self", revoke="/v1/auth/token/revoke-self")


class Served(NamedTuple):
    """A line of the table: a server, and what it is asked."""

    name: str
    server: Program
    tokens: list[str]  # that are verified in turn
    calls: Calls = LATCHKEY
    doomed: tuple[str, ...] = ()  # tokens that will be revoked
    database: str | None = None  # Latchkey's, in which the use of a key is noted
    postgres: Any = None  # its processes are measured too
    patience: int = 1  # it is measured for so many times as long


def install():
    """Make .venv/peers, unless what is wanted is in it already."""
    files = [ROOT / "requirements.txt", PINNED]
    wanted = "".join(file.read_text() for file in files)
    done = PEERS / "installed.txt"
    if done.exists() and done.read_text() == wanted:
        return
    print(f"installing into {PEERS} what is in bench/peers.txt …", file=sys.stderr)
    venv.create(PEERS, clear=True, with_pip=True)
    pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for file in files:
        subprocess.run([*pip, "-r", file], check=True)
    done.write_text(wanted)


def versions():
    named = PINNED.read_text().splitlines()[1:]
    return ", ".join(each.replace("==", " ") for each in named[: named.index(NEEDED)])


class Peers:
    """Starts them; each has ``keys`` keys that nobody asks for, and these more:

    ``asked`` that are verified, and ``doomed`` that will be revoked.
    """

    def __init__(self, home, keys, asked, doomed):
        self.home, self.keys, self.asked, self.doomed = home, keys, asked, doomed
        self.started = contextlib.ExitStack()

    def gunicorn(self, application, **more):
        server = Server(application, self.home / "gunicorn.log", **more)
        self.started.callback(server.stop)
        return server

    def granian(self, application, **environ):
        """As many workers and threads as gunicorn has."""
        port = free_port()
        command = [PEERS / "bin/granian", "--interface", "wsgi", "--port", str(port)]
        command += ["--workers", "2", "--blocking-threads", "4", application]
        server = Program(port, command, self.home / "granian.log", **environ)
        self.started.callback(server.stop)
        return server

    def all(self):
        """The floor first; Latchkey before the packages that use the same database."""
        postgres = Postgres()
        self.started.callback(postgres.remove)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE latchkey")
            connection.execute("CREATE DATABASE django")
        sqlite = f"sqlite:///{self.home}/%s.db"
        postgresql = postgres.url.replace("/postgres?", "/%s?")
        return [
            *self.limits(),
            *self.latchkey("SQLite", sqlite % "latchkey"),
            *self.django("SQLite", sqlite % "django"),
            *self.latchkey("PostgreSQL", postgresql % "latchkey", postgres),
            *self.django("PostgreSQL", postgresql % "django", postgres),
            self.openbao(),
            self.bcrypt(sqlite % "bcrypt"),
        ]

    def limits(self):
        """What a server and a framework cost that do nothing."""
        view, bare = "bench.floor:app", "bench.floor:bare"
        return [
            Served("floor: an empty Flask view", self.gunicorn(view), UNKNOWN),
            Served("the same, Granian", self.granian(view), UNKNOWN),
            Served("limit: a bare WSGI callable", self.gunicorn(bare), UNKNOWN),
        ]

    def latchkey(self, name, url, postgres=None):
        good = fill(url, self.keys, self.asked)
        doomed = tuple(fill(url, self.keys, self.doomed))
        shipped = self.gunicorn("wsgi:app", DATABASE_URL=url)
        other = self.granian("wsgi:app", DATABASE_URL=url)
        more = {"database": url, "postgres": postgres}
        return [
            Served(f"Latchkey, {name}", shipped, good, doomed=doomed, **more),
            Served(f"Latchkey, {name}, Granian", other, good, **more),
        ]

    def django(self, name, url, postgres=None):
        """The two packages, in one project; without PostgreSQL also an empty view."""
        given = self.fill_django(url)
        project = "bench.peer_django:application"
        server = self.gunicorn(project, python=PYTHON, DATABASE_URL=url)
        found = []
        for package, calls in (
            ("djangorestframework-api-key", API_KEY),
            ("django-rest-knox", KNOX),
        ):
            tokens = given[package]
            asked, doomed = tokens[: self.asked], tuple(tokens[self.asked :])
            line = f"{package}, {name}"
            found.append(Served(line, server, asked, calls, doomed, None, postgres))
        if postgres is None:
            line = "an empty view of Django REST framework"
            found.append(Served(line, server, UNKNOWN, EMPTY_DJANGO))
        return found

    def fill_django(self, url):
        """The tokens of each package that are asked or revoked."""
        more = self.asked + self.doomed
        command = [PYTHON, "-m", "bench.peer_django", str(self.keys), str(more)]
        environ = {"DATABASE_URL": url}
        filled = subprocess.run(
            command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE
        )
        return json.loads(filled.stdout)

    def openbao(self):
        """With everything in memory, and no audit device."""
        port = free_port()
        command = [PEERS / "bin/bao", "server", "-dev", "-dev-no-store-token"]
        command += ["-dev-root-token-id=root", f"-dev-listen-address=127.0.0.1:{port}"]
        server = Program(port, command, self.home / "openbao.log")
        self.started.callback(server.stop)
        while wait_for(f"{server.url}/v1/sys/health").status_code != 200:
            time.sleep(0.1)
        with ThreadPoolExecutor(4) as pool:
            count = (self.keys + self.asked + self.doomed) // 4 + 1
            tokens = sum(pool.map(create_tokens, [server.url] * 4, [count] * 4), [])
        asked, doomed = tokens[-self.asked :], tuple(tokens[: self.doomed])
        return Served("OpenBao, in memory", server, asked, OPENBAO, doomed)

    def bcrypt(self, url):
        asked = fill(url, self.keys, FEW, hashed=bcrypt_hash)
        environ = {"DATABASE_URL": url, "ALTERNATIVE": "bcrypt"}
        server = self.gunicorn("bench.alternatives:app", **environ)
        line = "bcrypt in a Flask view, SQLite"
        return Served(line, server, asked, database=url, patience=5)


def create_tokens(url, count):
    """So many tokens of OpenBao's."""
    link, found = http.client.HTTPConnection(url[7:]), []
    wanted = json.dumps({"policies": ["default"], "ttl": "24h"})
    for _ in range(count):
        root = {"Authorization": "Bearer root"}
        link.request("POST", "/v1/auth/token/create", wanted, root)
        created = json.loads(link.getresponse().read())
        found.append(created["auth"]["client_token"])
    link.close()
    return found
