"""A bad setting stops the start with one line that names it; what a start leads to."""

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from conftest import Person
from servers import (
    ROOT,
    disconnect,
    every_setting,
    first_of,
    flask,
    free_port,
    prepared,
)
from test_deploy import unprivileged

from app import create_app
from config import SettingsSchema, load_settings
from models.database import db

SETTINGS = SettingsSchema().fields
BAD = {
    "DATABASE_URL": "mysql://x",
    "LATCHKEY_BIND": "nowhere",
    "LATCHKEY_KEY_PREFIX": "Lk_",
    "LATCHKEY_DEFAULT_EXPIRY_DAYS": "400",
    "LATCHKEY_OIDC_CLIENT_ID": "two words",
    "LATCHKEY_OIDC_CLIENT_SECRET": "two words",
    "LATCHKEY_OIDC_NAME": "x" * 41,
}


@pytest.mark.parametrize("name", every_setting())
def test_a_bad_value_is_named(name):
    with pytest.raises(SystemExit, match=name):
        create_app({name: BAD.get(name, "many")})


@pytest.mark.parametrize(
    "name, value",
    [
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "postgresql://u@h:abc/d"),
        ("DATABASE_URL", "postgresql://[::1/d"),
        ("DATABASE_URL", "postgresql://h:65536/d"),
        ("LATCHKEY_BIND", "127.0.0.1:65536"),
    ],
)
def test_a_bad_address_is_named(name, value):
    with pytest.raises(SystemExit, match=name):
        create_app({name: value})


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_taken(migrated_app, database_url, scheme):
    app = create_app({"DATABASE_URL": scheme + database_url.removeprefix("postgresql")})
    assert app.test_client().get("/healthz").status_code == 200
    with app.app_context():
        assert db.session.scalar(db.text("SELECT count(*) FROM users")) == 3
    disconnect(app)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_only_a_migration_makes_the_file(new_database_url):
    """A wrong path is an error, not an empty database that accepts nobody."""
    app = create_app({"DATABASE_URL": new_database_url})
    assert app.test_client().get("/healthz").status_code == 503
    assert not Path(new_database_url.removeprefix("sqlite:///")).exists()
    flask(new_database_url, "db", "upgrade")
    assert app.test_client().get("/healthz").status_code == 200
    disconnect(app)


@pytest.fixture
def setting(new_database_url):
    """synchronous_commit in the app's session, by what the server or the URL says."""

    def found(server, query=""):
        name, query = urlsplit(new_database_url).path[1:], f"&{query}" if query else ""
        with psycopg.connect(new_database_url, autocommit=True) as other:
            other.execute(f"ALTER DATABASE {name} SET synchronous_commit = {server}")
        app = create_app({"DATABASE_URL": new_database_url + query})
        with app.app_context():
            show, told = db.text("SHOW synchronous_commit"), []
            for _ in range(2):
                told.append(db.session.scalar(show))
                db.session.rollback()
            db.engine.dispose()
        return told

    return found


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "server, ours", [("off", "on"), ("remote_apply", "remote_apply")]
)
def test_acknowledged_is_durable_whatever_the_server_is_set_to(setting, server, ours):
    assert setting(server) == [ours] * 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_a_dead_host_had_locked_is_free_after_a_minute(migrated_app):
    show = "SHOW idle_in_transaction_session_timeout"
    with migrated_app.app_context():
        assert db.session.scalar(db.text(show)) == "1min"
    with migrated_app.extensions["verifier"].cursor() as cursor:
        [row] = cursor.execute(show).fetchall()
        assert list(row) == ["1min"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_acknowledged_is_durable_whatever_the_url_asks_for(setting):
    assert setting("on", "options=-csynchronous_commit%3Doff") == ["on"] * 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_gunicorn_leaves_nothing_in_the_home_directory(serve, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    server = serve(HOME=str(home), XDG_RUNTIME_DIR="")
    server.stop()
    assert list(home.iterdir()) == [] and "Control socket" not in server.log.read_text()


# --- white space ----------------------------------------------------------------------

AROUND = ["{} ", " {}", "{}\n", "{}\r\n", "\t{}\t", "\n {} \n", "\u00a0{}", "{}\v\f"]
VALUES = {
    "DATABASE_URL": "postgresql://u:p@h1:5432,h2:5432/d?sslmode=require",
    "PORT": "8123",
    "WEB_CONCURRENCY": "3",
    "LATCHKEY_BIND": "127.0.0.1:8124",
    "LATCHKEY_PUBLIC_URL": "https://keys.example.org",
    "LATCHKEY_KEY_PREFIX": "ab",
    "LATCHKEY_SESSION_HOURS": "13",
    "LATCHKEY_MAX_ACTIVE_KEYS": "6",
    "LATCHKEY_DEFAULT_EXPIRY_DAYS": "91",
    "LATCHKEY_MAX_EXPIRY_DAYS": "366",
    "LATCHKEY_BCRYPT_ROUNDS": "5",
    "LATCHKEY_LOGIN_FAILURES": "11",
    "LATCHKEY_LOGIN_WINDOW_MINUTES": "16",
}


def test_each_setting_is_here():
    assert VALUES.keys() == SETTINGS.keys()


@pytest.mark.parametrize("around", AROUND, ids=ascii)
@pytest.mark.parametrize("name", VALUES)
def test_white_space_around_a_value_means_nothing(name, around):
    """A file's last line feed, a form's tab, a secret store's CRLF."""
    plain = load_settings({name: VALUES[name]})
    assert plain != load_settings({})
    assert load_settings({name: around.format(VALUES[name])}) == plain


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n", "\t \t", "\u00a0"], ids=ascii)
@pytest.mark.parametrize("name", VALUES)
def test_nothing_but_white_space_is_as_not_set(name, blank):
    assert load_settings({name: blank}) == load_settings({})


@pytest.mark.parametrize(
    "name", ["PORT", "LATCHKEY_SESSION_HOURS", "LATCHKEY_KEY_PREFIX"]
)
def test_white_space_within_a_value_is_a_fault(name):
    with pytest.raises(SystemExit, match=name):
        load_settings({name: " ".join(VALUES[name])})


@pytest.mark.parametrize(
    "environ, bind",
    [
        ({}, "127.0.0.1:8000"),
        ({"PORT": "8123"}, "0.0.0.0:8123"),
        ({"PORT": " 8123\n"}, "0.0.0.0:8123"),
        ({"PORT": ""}, "127.0.0.1:8000"),
        ({"PORT": " "}, "127.0.0.1:8000"),
        ({"PORT": "\r\n"}, "127.0.0.1:8000"),
        ({"PORT": "8123", "LATCHKEY_BIND": "127.0.0.1:9"}, "127.0.0.1:9"),
        ({"PORT": "8123", "LATCHKEY_BIND": " 127.0.0.1:9\n"}, "127.0.0.1:9"),
        ({"PORT": "8123", "LATCHKEY_BIND": ""}, "0.0.0.0:8123"),
        ({"PORT": "8123", "LATCHKEY_BIND": " \n"}, "0.0.0.0:8123"),
        ({"PORT": " ", "LATCHKEY_BIND": "\tunix:/run/a b "}, "unix:/run/a b"),
        ({"PORT": " ", "LATCHKEY_BIND": " "}, "127.0.0.1:8000"),
    ],
    ids=str,
)
def test_gunicorn_takes_it_in_the_same_way(monkeypatch, environ, bind):
    """A blank PORT must not open the service to the network."""
    for name in ("PORT", "LATCHKEY_BIND"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["bind"] == bind


# --- several hosts --------------------------------------------------------------------

HOSTS = [
    "{user}@{good}/{name}",
    "{user}@{bad},{good}/{name}",
    "{user}@{good},{bad}/{name}",
    "{user}@{good},{good}/{name}",
    "{user}@{bad},{bad},{good}/{name}",
    "{user}@{bad},{good},{bad}/{name}",
    "{user}@localhost:1,{good}/{name}",
    "{user}@[::1]:1,{good}/{name}",
    "{user}@[::1]:1,[::1]:1,{good}/{name}",
    "{user}@{good},[::1]:1/{name}",
    "{user}@%2Fnowhere:1,{good}/{name}",
    "{user}@127.0.0.1,{good}/{name}",
    "{user}:pass@{bad},{good}/{name}",
    "{user}:p%40ss%3A%2F%2C@{bad},{good}/{name}",
    "{user}@{bad},{good}/{name}?application_name=a%20b",
    "{user}@{bad},{good}/{name}?target_session_attrs=any&connect_timeout=9",
    "{user}@{bad},{good}/{name}?options=-c%20DateStyle%3DGerman",
    "{bad},{good}/{name}?user={user}",
    "{bad},{good}?user={user}&dbname={name}",
    "/{name}?host=127.0.0.1,127.0.0.1&port=1,{port}&user={user}",
    "/{name}?host=127.0.0.1%2C127.0.0.1&port=1%2C{port}&user={user}",
]


@pytest.fixture(scope="module")
def tcp(postgresql):
    """A port of TCP at which the tests' PostgreSQL answers too."""
    parts = urlsplit(postgresql)
    if not (folder := parse_qs(parts.query).get("host")):
        yield parts.port or 5432
        return

    class Forward(BaseRequestHandler):
        def handle(self):
            with socket.socket(socket.AF_UNIX) as server:
                server.connect(f"{folder[0]}/.s.PGSQL.5432")
                back = threading.Thread(target=copy, args=(server, self.request))
                back.start()
                copy(self.request, server)
                back.join()

    def copy(one, other):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)

    ThreadingTCPServer.block_on_close = False
    with ThreadingTCPServer(("127.0.0.1", 0), Forward) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
@pytest.mark.parametrize("hosts", HOSTS)
def test_several_hosts_are_taken_as_libpq_does(
    migrated_app, database_url, tcp, scheme, hosts
):
    """The first that answers as the primary."""
    parts = urlsplit(database_url)
    known = {"user": parts.username, "name": parts.path[1:], "port": tcp}
    address = hosts.format(**known, good=f"127.0.0.1:{tcp}", bad="127.0.0.1:1")
    app = create_app({"DATABASE_URL": f"{scheme}://{address}"})
    assert app.test_client().get("/healthz").status_code == 200
    with app.app_context():
        assert db.session.scalar(db.text("SELECT count(*) FROM users")) == 3
        shown = db.session.scalar(db.text("SHOW application_name"))
    assert shown == ("a b" if "application_name" in hosts else "")
    told = app.test_cli_runner().invoke(args=["users", "list"])
    assert told.exit_code == 0 and "alice" in told.output
    disconnect(app)


@pytest.mark.parametrize(
    "hosts",
    [
        "u@h1:5432,h2:x/d",
        "u@h1:x,h2:5432/d",
        "u@h1:65536,h2:5432/d",
        "u@h1:5432,h2:99999/d",
        "u@h1:5432,h2:-1/d",
        "u@h1:5432,[::1/d",
        "u@[::1]x,h2/d",
        "u@h1:5432,::1/d",
        "u@h1:1:2,h2/d",
        "u@h1,h2@h3/d",
    ],
)
def test_of_several_hosts_a_bad_one_is_named(hosts):
    with pytest.raises(SystemExit, match="DATABASE_URL"):
        load_settings({"DATABASE_URL": f"postgresql://{hosts}"})


# --- a place that cannot be written ---------------------------------------------------


@pytest.fixture(scope="module")
def unwritable():
    """A tree that is ready to start, of which nobody but its owner may write a part."""
    home = Path(tempfile.mkdtemp(prefix="latchkey-unwritable-"))
    not_needed = shutil.ignore_patterns(".*", "__pycache__", "instance", "node_modules")
    shutil.copytree(ROOT, home / "tree", ignore=not_needed)
    (home / "tree/.venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (home / "tree/.venv" / part).symlink_to(Path(sys.prefix, part))
    (home / "mine").mkdir()
    (home / "mine/latchkey.db").touch()
    (home / "mine/latchkey.db").chmod(0o666)
    (home / "old").mkdir()
    with prepared(f"sqlite:///{home}/old/latchkey.db"):
        pass
    (home / "old/latchkey.db").chmod(0o444)
    (home / "old").chmod(0o777)
    if os.getuid() == 0:
        shutil.chown(home / "old/latchkey.db", "nobody")
    for path in (home, home / "tree", home / "tree/.venv", home / "mine"):
        path.chmod(0o555)
    yield home
    for path in (home, home / "tree", home / "tree/.venv", home / "mine"):
        path.chmod(0o755)
    shutil.rmtree(home)


@pytest.fixture
def start(unwritable):
    """Run a command there, as somebody who may read and not write."""

    def run(command, url="", requirements=True):
        ready = unwritable / "tree/.venv/requirements.txt"
        ready.parent.chmod(0o755)
        ready.unlink(missing_ok=True)
        if requirements:
            shutil.copy(ROOT / "requirements.txt", ready)
        ready.parent.chmod(0o555)
        environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C"}
        environ |= {
            "DATABASE_URL": url.format(home=unwritable),
            "PYTHON": sys.executable,
        }
        environ["LATCHKEY_BIND"] = f"127.0.0.1:{free_port()}"
        told = subprocess.run(
            [*unprivileged(), *command],
            cwd=unwritable / "tree",
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return told.returncode, told.stdout, told.stderr

    return run


UPGRADE = [".venv/bin/python", "-m", "flask", "--app", "wsgi", "db", "upgrade"]
PLACES = {
    "the tree": "",
    "a folder that is not there": "sqlite:////nowhere/at/all/latchkey.db",
    "a folder of root's": "sqlite:////etc/latchkey.db",
    "a new folder in one of root's": "sqlite:////etc/latchkey/latchkey.db",
    "a file of root's": "sqlite:////etc/hostname",
    "a file of mine in a folder of root's": "sqlite:///{home}/mine/latchkey.db",
    "a file of mine that is for reading": "sqlite:///{home}/old/latchkey.db",
    "a folder": "sqlite:////tmp",
    "under a file": "sqlite:////etc/hostname/latchkey.db",
    "no file system": "sqlite:////proc/latchkey.db",
    "a device": "sqlite:////dev/null",
    "a name that is too long": f"sqlite:////tmp/{'x' * 300}",
    "relative": "sqlite:///data/latchkey.db",
    "above": "sqlite:///../../latchkey.db",
}


@pytest.mark.live
@pytest.mark.parametrize("command", [["sh", "dev.sh", "run"], UPGRADE], ids=" ".join)
@pytest.mark.parametrize("url", PLACES.values(), ids=PLACES)
def test_a_start_where_nothing_can_be_written_ends_in_one_line(start, command, url):
    code, output, errors = start(command, url)
    assert code != 0 and output == ""
    assert errors.startswith("latchkey: DATABASE_URL cannot be written: ")
    assert errors.count("\n") == 1


@pytest.mark.live
def test_where_the_requirements_cannot_be_installed_it_is_one_line_too(start):
    code, output, errors = start(["sh", "dev.sh", "run"], requirements=False)
    assert code != 0 and output == ""
    assert ".venv" in errors and errors.count("\n") == 1


@pytest.mark.live
def test_without_a_venv_and_the_right_to_make_one_it_is_one_line_too(start, unwritable):
    (unwritable / "tree").chmod(0o755)
    (unwritable / "tree/.venv").rename(unwritable / "tree/venv")
    (unwritable / "tree").chmod(0o555)
    try:
        told = subprocess.run(
            [*unprivileged(), "sh", "dev.sh", "run"],
            cwd=unwritable / "tree",
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
        )
    finally:
        (unwritable / "tree").chmod(0o755)
        (unwritable / "tree/venv").rename(unwritable / "tree/.venv")
        (unwritable / "tree").chmod(0o555)
    assert told.returncode != 0 and told.stdout == ""
    assert ".venv" in told.stderr and told.stderr.count("\n") == 1


ASK = """
import sys
from app import create_app

url, session, key_id = sys.argv[1:]
http = create_app({"DATABASE_URL": url}).test_client()
for _ in range(2):
    print(http.get("/healthz").status_code)
bearer = {"Authorization": f"Bearer {session}"}
print(http.delete(f"/api/me/api-keys/{key_id}", headers=bearer).status_code)
"""


@pytest.mark.live
@pytest.mark.parametrize(
    "file, folder, healthy",
    [
        (0o444, 0o777, False),
        (0o444, 0o555, False),
        (0o666, 0o555, False),
        (0o000, 0o777, False),
        (0o666, 0o777, True),
    ],
    ids=["file", "file and folder", "folder", "not even read", "all may be written"],
)
def test_healthz_says_when_a_file_cannot_be_written(file, folder, healthy):
    """For then nothing can be revoked."""
    home = Path(tempfile.mkdtemp(prefix="latchkey-read-only-"))
    url = f"sqlite:///{home}/latchkey.db"
    with prepared(url) as app:
        alice = Person(app, "alice")
        key = alice.key()
    (home / "latchkey.db").chmod(file)
    home.chmod(folder)
    command = [*unprivileged(), sys.executable, "-c", ASK, url, alice.token, key["id"]]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    home.chmod(0o755)
    shutil.rmtree(home)
    *health, revoked = told.stdout.split()
    assert health == ["200" if healthy else "503"] * 2
    assert (revoked == "200") == healthy


# --- PYTHONOPTIMIZE -------------------------------------------------------------------

DOCUMENTS = """
import json
import re
import sys
from app import create_app

http = create_app().test_client()
told = {"level": sys.flags.optimize}

def keep(path, answer):
    told[path] = [answer.status_code, sorted(answer.headers.items()), answer.text]

listed = http.get("/llms.txt").text
pages = set(re.findall(r"/docs/[a-z-]+(?=[.]md)", listed))
for path in ["/openapi.json", "/docs", "/llms.txt", "/", *pages]:
    keep(path, http.get(path))
for path in [*(f"{page}.md" for page in pages)]:
    keep(path, http.get(path))
for path in ["/.well-known/oauth-authorization-server", "/docs/nothing", "/api/me"]:
    keep(path, http.get(path))
for method in ["ping", "tools/list", "initialize", "tools/call"]:
    params = {"name": "search_docs", "arguments": {"query": "revoke key"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    keep(f"/mcp {method}", http.post("/mcp", json=message))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def documents():
    """Every document, as the interpreter of this level serves it."""

    def served(level):
        environ = {**os.environ, "DATABASE_URL": "sqlite:////nowhere/latchkey.db"}
        environ.pop("PYTHONOPTIMIZE", None)
        if level:
            environ["PYTHONOPTIMIZE"] = level
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
        command = [sys.executable, "-c", DOCUMENTS]
        told = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True
        )
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    return served


@pytest.mark.live
@pytest.mark.parametrize("level", first_of(["2", "1"]))
def test_pythonoptimize_changes_no_document(documents, level):
    """It removes asserts and, at 2, docstrings: none of them is shown to a reader."""
    plain, optimized = documents(None), documents(level)
    assert (plain.pop("level"), optimized.pop("level")) == (0, int(level))
    assert len([path for path in plain if path.endswith(".md")]) >= 10
    assert all(told[0] in (200, 401, 404) for told in plain.values())
    for path, told in plain.items():
        assert optimized[path] == told, path


@pytest.mark.live
@pytest.mark.parametrize("level", first_of(["2", "1"]))
def test_pythonoptimize_makes_the_same_openapi_json(level):
    environ = {**os.environ, "PYTHONOPTIMIZE": level, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "tools/make_openapi.py", "--check"]
    told = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True)
    assert (told.returncode, told.stderr) == (0, b"")


@pytest.mark.live
@pytest.mark.parametrize("level", first_of(["2", "1"]))
def test_pythonoptimize_changes_no_answer(serve, alice, level):
    server = serve(PYTHONOPTIMIZE=level)
    key, bearer = alice.key(), {"Authorization": f"Bearer {alice.token}"}
    with httpx.Client(base_url=server.url) as http:
        told = http.get("/verify", headers={"Authorization": f"Bearer {key['token']}"})
        assert (told.status_code, told.headers["X-Key-Id"]) == (200, key["id"])
        path = f"/api/me/api-keys/{key['id']}"
        assert http.delete(path, headers=bearer).json()["data"] == {}
        assert http.delete(f"{path}x", headers=bearer).status_code == 404
        wrong = {"username": "alice", "password": "wrong"}
        assert http.post("/api/auth/login", json=wrong).status_code == 401
        assert http.post("/api/auth/login", json={}).status_code == 400
        form = {"token": key["token"]}
        assert http.post("/oauth/revoke", data=form).status_code == 200
    assert alice.call("GET", "/api/me").status_code == 200
