"""What attackers send to the real thing, straight or through nginx; what it logs."""

import os
import socket
import subprocess
import sys
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
import test_deploy
from servers import ROOT

import tokens
from models.database import db
from models.user import User

pytestmark = pytest.mark.live
nginx = test_deploy.behind_nginx  # deploy/nginx.conf, as it is


def bearer(token):
    return ("Authorization", f"Bearer {token}")


@pytest.fixture(params=["straight", "nginx"])
def door(request, serve):
    """Where a client comes in: at Latchkey itself, or at the nginx before it."""
    if request.param == "straight":
        with httpx.Client(base_url=serve().url) as http:
            yield http
    else:
        yield request.getfixturevalue("nginx")(serve(LATCHKEY_TRUSTED_PROXIES="1").url)


def exactly(http, sent):
    """All that comes back for these very bytes."""
    address, answer = (http.base_url.host, http.base_url.port), b""
    with socket.create_connection(address, timeout=5) as wire, suppress(OSError):
        wire.sendall(sent)
        while more := wire.recv(65536):
            answer += more
    return answer


FORGED = {
    "identity": [
        ("X-User-Id", "{bob}"),
        ("X-User-Name", "bob"),
        ("X-Key-Scopes", "read write"),
        ("X-Key-Expires-At", "2999-01-01T00:00:00Z"),
    ],
    "twice": [("X-User-Id", "{bob}"), ("x-user-id", "{bob}")],
    "underscores": [
        ("X_User_Id", "{bob}"),
        ("X-User_Id", "{bob}"),
        ("Authorization_", "x"),
    ],
    "CGI": [
        ("REMOTE_USER", "bob"),
        ("HTTP_AUTHORIZATION", "x"),
        ("Remote-User", "bob"),
    ],
    "route": [("SCRIPT_NAME", "/verify"), ("PATH_INFO", "/healthz")],
    "no route": [("SCRIPT_NAME", "/nonsense")],
    "rewrite": [("X-Original-URL", "/healthz"), ("X-Rewrite-URL", "/healthz")],
    "prefix": [("X-Forwarded-Prefix", "/verify"), ("X-Script-Name", "/verify")],
    "method": [("X-HTTP-Method-Override", "DELETE"), ("X-Forwarded-Method", "DELETE")],
    "scheme": [("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "off")],
    "address": [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "127.0.0.1")],
}


def test_no_header_of_a_client_says_who_or_where(door, alice, bob, sql):
    key, his = alice.key(), bob.key()["user_id"]
    for what, headers in FORGED.items():
        forged = [(name, value.format(bob=his)) for name, value in headers]
        for path in ("/verify", "/verify/", "/verify/healthz"):
            assert door.get(path, headers=forged).status_code == 401, what
            answer = door.get(path, headers=[bearer(key["token"]), *forged])
            assert answer.headers.get_list("X-User-Id") == [key["user_id"]], what
            assert answer.headers.get_list("X-Key-Scopes") == ["read"], what
            expiry = [f"{key['expires_at'][:19]}Z"]
            assert answer.headers.get_list("X-Key-Expires-At") == expiry, what
        me = door.get("/api/me", headers=[bearer(alice.token), *forged])
        assert me.json()["data"]["username"] == "alice", what
    assert [
        row for row in sql("SELECT last_used_ip FROM api_keys") if row[0] == "6.6.6.6"
    ] == []
    assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(2,)]


def test_no_forged_address_gets_around_the_throttle(door, sql):
    names = (
        "X-Forwarded-For",
        "X-Real-IP",
        "Forwarded",
        "X_Forwarded_For",
        "X-Client-IP",
    )
    codes = []
    for n in range(12):
        who = {"username": f"nobody{n}", "password": "wrong"}
        headers = {name: f"6.6.6.{n}" for name in names}
        codes.append(
            door.post("/api/auth/login", json=who, headers=headers).status_code
        )
    assert codes == [401] * 10 + [429] * 2
    [(address,)] = sql("SELECT DISTINCT ip FROM audit_events")
    assert not address.startswith("6.6.6.")


FRAMES = {  # what two readers may take for requests of different length
    "both lengths": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "two lengths": ["Content-Length: 5", "Content-Length: 0"],
    "a list of lengths": ["Content-Length: 5, 0"],
    "signed length": ["Content-Length: +5"],
    "encoded twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "chunked, then not": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "unknown encoding": ["Transfer-Encoding: xchunked"],
    "space before the colon": ["Transfer-Encoding : chunked", "Content-Length: 5"],
    "folded": ["Transfer-Encoding:", " chunked", "Content-Length: 5"],
    "vertical tab": ["Transfer-Encoding: \x0bchunked", "Content-Length: 5"],
    "bare line feed": ["X: y\nTransfer-Encoding: chunked", "Content-Length: 5"],
}


def test_no_request_hides_in_another(door, alice, sql):
    """Each is refused and the connection closed: what follows is nobody's request."""
    alice.key()
    hidden = "DELETE /api/me/api-keys HTTP/1.1\r\nHost: x\r\n{}: {}\r\n".format(
        *bearer(alice.token)
    )
    for what, lines in FRAMES.items():
        head = "\r\n".join(["POST /verify HTTP/1.1", "Host: x", *lines])
        answer = exactly(door, f"{head}\r\n\r\n0\r\n\r\n{hidden}\r\n".encode())
        assert answer.count(b"HTTP/1.1 ") == 1 and answer.split()[1] in (
            b"400",
            b"501",
        ), what
        assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [
            (1,)
        ], what


# --- time -----------------------------------------------------------------------------

LONG = [
    "a",
    "a_",
    "lk_",
    "0",
    "A",
    " ",
    "-",
    ".",
    "[",
    "\u00e9",
    "{",
    "lk_" + "0" * 12 + "_",
]
SLOW = f"""
import re
import sys
import wsgi
assert sys.flags.hash_randomization  # nobody knows which strings collide
ours = [
    module
    for module in list(sys.modules.values())
    if (getattr(module, "__file__", None) or "").startswith({str(ROOT)!r})
    and "site-packages" not in module.__file__
]
patterns = {{
    value
    for module in ours
    for value in vars(module).values()
    if isinstance(value, re.Pattern)
}}
assert len(patterns) >= 4, patterns
for text in {LONG!r}:
    for pattern in patterns:
        pattern.sub("", text * (300_000 // len(text)))
        pattern.fullmatch(text * (300_000 // len(text)))
"""


def test_no_expression_goes_over_a_text_again_and_again():
    """300 KB take 0.2 s; with the square of their length, 200 s."""
    environ = {
        name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"
    }
    subprocess.run(
        [sys.executable, "-c", SLOW], cwd=ROOT, env=environ, check=True, timeout=60
    )


def test_16_kb_of_anything_get_an_answer(serve):
    with httpx.Client(base_url=serve().url, timeout=10) as http:
        for many in (
            ",".join(f'"{n:x}":0' for n in range(1700)),
            f'"{"a" * 16000}":"x"',
        ):
            answer = http.post(
                "/api/auth/login",
                content=f"{{{many}}}",
                headers={"Content-Type": "application/json"},
            )
            assert answer.status_code == 400 and len(answer.content) < 200_000
        form = {f"{n:x}": "" for n in range(3000)}
        assert http.post("/oauth/revoke", data=form).status_code in (400, 413)
        words = {
            "name": "search_docs",
            "arguments": {"query": " ".join(map(str, range(3000)))},
        }
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": words}
        assert http.post("/mcp", json=call).status_code == 200


# --- what is written down -------------------------------------------------------------


@contextmanager
def broken(sql):
    """The table of users is away: each question is an error in the log."""
    sql("ALTER TABLE users RENAME TO away")
    try:
        yield
    finally:
        sql("ALTER TABLE away RENAME TO users")


def test_nobody_forges_a_line_of_the_log(serve, alice, sql):
    server, forged = (
        serve(),
        "\n[2026-01-01 00:00:00 +0000] [1] [INFO] forged\r\x1b[2J\x9b\u2028",
    )
    token = alice.key()["token"]
    with (
        httpx.Client(base_url=server.url, headers=[bearer(token)]) as http,
        broken(sql),
    ):
        assert http.get(f"/verify/{quote(forged, safe='')}").status_code == 503
        session = [bearer(alice.token)]
        where = f"/api/me/api-keys/{quote(forged, safe='')}"
        assert http.delete(where, headers=session).status_code == 500
        who = {"username": forged, "password": "wrong"}
        assert http.post("/api/auth/login", json=who).status_code == 500
        for name in (b"X\x1b[2J", b"X\xc2\x9b", b"X\rforged"):
            exactly(http, b"GET /verify HTTP/1.1\r\nHost: x\r\n%b: y\r\n\r\n" % name)
    written = server.log.read_bytes().decode()
    assert written.count("ERROR in") == 2 and "forged" in written
    assert written.count("a key could not be verified") == 1
    assert not [line for line in written.split("\n") if line.startswith("[2026-01-01")]
    assert {char for char in written if not char.isprintable()} == {"\n"}


def stored(database_url):
    """Every file of the database that the tests start."""
    if database_url.startswith("sqlite"):
        file = Path(database_url.removeprefix("sqlite:///"))
        return file.parent.glob(f"{file.name}*")
    if "TEST_DATABASE_URL" in os.environ:
        return []
    home = Path(parse_qs(urlsplit(database_url).query)["host"][0])
    return [
        home / "log",
        *(each for each in (home / "data").rglob("*") if each.is_file()),
    ]


BROKEN = [  # the words of these gunicorn would quote in its log
    "GET /verify HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {token}\r\n\r\n",
    "GET /verify HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {token}: x\r\n\r\n",
    "GET /verify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {token}\r\n\r\n",
    "GET /verify HTTP/1.1\r\nHost: x\r\nExpect: {token}\r\n\r\n",
    "GET /verify {token}\r\nHost: x\r\n\r\n",
    "{token}@ /verify HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /api/auth/login HTTP/1.1\r\nHost: x\r\n\r\npassword={password}\r\n\r\n",
    "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    "Transfer-Encoding: chunked\r\n\r\n{password}\r\n\r\n0\r\n\r\n",
]


def misuse(http, password, session, key):
    """Secrets where they belong, and everywhere else."""
    keys, token, public = "/api/me/api-keys", key["token"], key["key_public"]
    forged = token[:16] + tokens.new_token("lk").text[16:-6]
    forged += tokens.checksum(forged)
    for opener in (token, forged, session):
        http.get(f"/verify/{token}?token={session}", headers=[bearer(opener)])
        http.delete(f"{keys}/{opener}", headers=[bearer(session)])
        http.get(f"/docs/{opener}", headers={"Cookie": f"latchkey={opener}"})
        http.post("/oauth/introspect", data={"token": opener}, auth=(public, token))
        for name in ("eve", password, opener):
            for tried in (f"{password}-not", "eve", opener):
                http.post("/api/auth/login", json={"username": name, "password": tried})
        wanted = {"name": "script", "mode": opener, "password": f"{password}-not"}
        http.post(keys, json=wanted, headers=[bearer(session)])
        http.post(keys, json=wanted | {"mode": "read"}, headers=[bearer(session)])
    for sent in BROKEN:
        exactly(http, sent.format(token=token, password=password).encode())


def test_nothing_that_lets_anybody_in_is_written_down(app, serve, sql, database_url):
    server, password = serve(LATCHKEY_LOGIN_FAILURES="1000"), f"right-{uuid.uuid4()}"
    with app.app_context():
        eve = User(username="eve")
        eve.set_password(password)
        db.session.add(eve)
        db.session.commit()
    who, ours = (
        {"username": "eve", "password": password},
        {"Sec-Fetch-Site": "same-origin"},
    )
    with httpx.Client(base_url=server.url) as http:
        session = http.post("/api/auth/login", json=who).json()["data"]["token"]
        browser = http.post("/api/session", json=who, headers=ours)
        cookie = browser.cookies["latchkey"]
        http.cookies.clear()
        wanted = {"name": "script", "mode": "read", "password": password}
        made = http.post("/api/me/api-keys", json=wanted, headers=[bearer(session)])
        key = made.json()["data"]
        misuse(http, password, session, key)
        with broken(sql):
            misuse(http, password, session, key)
        for token in (key["token"], session):
            assert http.post("/oauth/revoke", data={"token": token}).status_code == 200
    if database_url.startswith("postgres"):
        sql("CHECKPOINT")
    tables = ("users", "sessions", "api_keys", "audit_events")
    # By another process: to close a file of SQLite's here would drop this one's locks.
    files = {
        path: subprocess.check_output(["cat", path]) for path in stored(database_url)
    }
    files |= {table: repr(sql(f"SELECT * FROM {table}")).encode() for table in tables}
    files[server.log] = server.log.read_bytes()
    opening = [
        password,
        *(t.rpartition("_")[2] for t in (key["token"], session, cookie)),
    ]
    for secret in opening:
        assert [where for where, held in files.items() if secret.encode() in held] == []
    # It would have been found: the public part is in the table, a file and the log.
    found = {
        str(where)
        for where, held in files.items()
        if key["key_public"].encode() in held
    }
    assert len(found) > 1 and str(server.log) in found
