"""What proxies and gateways send: websockets, odd hosts, addresses, large bodies."""

import json
import os
import runpy
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from threading import Thread

import pytest
import servers
from conftest import PASSWORD, Person, log_in
from servers import ROOT, Server, disconnect, free_port, program, wait_for

from app import create_app

KEYS = "/api/me/api-keys"
AS_JSON = "Content-Type: application/json"
AS_FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def server(migrated_app, database_url, tmp_path_factory):
    """gunicorn behind one proxy that it trusts: this test."""
    log = tmp_path_factory.mktemp("gunicorn") / "log"
    server = Server(database_url, log, LATCHKEY_TRUSTED_PROXIES="1")
    yield server
    server.stop()


@pytest.fixture
def send(server):
    """Send exactly this; status, headers and body of the answer, within 5 seconds."""

    def ask(method, path, *headers, body=b"", host="latchkey", version="HTTP/1.1"):
        lines = [f"{method} {path} {version}", "Connection: close", *headers]
        if host is not None:
            lines.insert(1, f"Host: {host}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as wire:
            wire.sendall(head + body)
            with HTTPResponse(wire, method=method) as answer:
                answer.begin()
                return answer.status, answer.headers, answer.read()

    return ask


@pytest.fixture
def proxied(app, database_url):
    """An app behind one proxy that it trusts."""
    environ = {"DATABASE_URL": database_url, "LATCHKEY_TRUSTED_PROXIES": "1"}
    proxied = create_app({**environ, "LATCHKEY_BCRYPT_ROUNDS": "4"})
    yield proxied
    disconnect(proxied)


# --- websockets -----------------------------------------------------------------------

WEBSOCKETS = {
    "as in the report": ["Connection: Upgrade", "Upgrade: websocket"],
    "a browser's": [
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: chat, superchat",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Origin: http://latchkey",
    ],
    "in another case": ["connection: UPGRADE", "upgrade: WebSocket"],
    "no spaces": ["Connection:keep-alive,upgrade", "Upgrade:websocket"],
    "in two headers": [
        "Connection: keep-alive",
        "Connection: Upgrade",
        "Upgrade: websocket",
    ],
    "no Connection": ["Upgrade: websocket"],
    "no Upgrade": ["Connection: Upgrade"],
    "of several": ["Connection: Upgrade", "Upgrade: websocket, h2c"],
    "with a version": ["Connection: Upgrade", "Upgrade: websocket/13"],
    "h2c": [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    ],
    "TLS": ["Connection: Upgrade", "Upgrade: TLS/1.2"],
    "wss from the proxy": ["X-Forwarded-Proto: wss"],
    "ws from the proxy": ["X-Forwarded-Proto: ws"],
    "WSS from the proxy": ["X-Forwarded-Proto: WSS"],
    "wss from the last of two proxies": ["X-Forwarded-Proto: https, wss"],
    "ws from the last of two headers": [
        "X-Forwarded-Proto: https",
        "X-Forwarded-Proto: ws",
    ],
    "both": ["Connection: Upgrade", "Upgrade: websocket", "X-Forwarded-Proto: wss"],
    "a scheme that nobody knows": ["X-Forwarded-Proto: h2c"],
    "no scheme": ["X-Forwarded-Proto:"],
}
websockets = pytest.mark.parametrize("looks", WEBSOCKETS.values(), ids=WEBSOCKETS)


@websockets
def test_verify_answers_a_websocket_as_any_other_request(send, alice, looks):
    """The gateway asks with the client's headers; 400 would refuse a good key."""
    key = alice.key()
    good, bad = f"Authorization: Bearer {key['token']}", "Authorization: Bearer lk_x"
    for method in ("GET", "POST", "OPTIONS"):
        status, headers, body = send(method, "/verify", good, *looks)
        assert (status, body) == (200, b"")
        assert headers["X-Key-Id"] == key["id"]
        assert "Upgrade" not in headers
    assert send("GET", "/verify/socket?x=1", good, *looks)[0] == 200
    assert send("GET", "/verify?scope=write", good, *looks)[0] == 403
    assert send("GET", "/verify", bad, *looks)[0] == 401
    assert send("GET", "/verify", *looks)[0] == 401


@websockets
def test_every_view_answers_a_websocket_as_any_other_request(send, alice, looks, sql):
    session, as_json = f"Authorization: Bearer {alice.token}", AS_JSON
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    who = json.dumps({"username": "alice", "password": PASSWORD}).encode()
    wanted = {"name": "socket", "mode": "read", "password": PASSWORD}
    looks = [line for line in looks if not line.startswith("Origin:")]
    for status, method, path, headers, body in [
        (200, "GET", "/healthz", [], b""),
        (200, "GET", "/", [], b""),
        (200, "GET", "/docs", [], b""),
        (200, "GET", "/docs/revoke-key.md", [], b""),
        (200, "GET", "/openapi.json", [], b""),
        (200, "GET", "/.well-known/oauth-authorization-server", [], b""),
        (200, "POST", "/mcp", [as_json], ping),
        (200, "POST", "/api/auth/login", [as_json], who),
        (200, "GET", "/api/me", [session], b""),
        (201, "POST", KEYS, [session, as_json], json.dumps(wanted).encode()),
        (200, "GET", KEYS, [session], b""),
        (200, "GET", f"{KEYS}/audit", [session], b""),
        (404, "DELETE", f"{KEYS}/unknown", [session], b""),
        (200, "DELETE", KEYS, [session], b""),
        (401, "GET", "/api/me", [], b""),
        (200, "POST", "/oauth/revoke", [AS_FORM], b"token=lk_x"),
        (404, "GET", "/nowhere", [], b""),
        (405, "PUT", "/api/auth/login", [], b""),
    ]:
        told = send(method, path, *headers, *looks, body=body)
        assert (told[0], "Upgrade" in told[1]) == (status, False), (method, path)
    revoked = "SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL"
    assert sql(revoked) == [(1,)]


# --- odd hosts ------------------------------------------------------------------------

HOSTS = {
    "two dots": "a..b",
    "a label of 64": f"{'a' * 64}.example",
    "a label of 64 with a port": f"{'a' * 64}.example:8000",
    "a dot in front": ".example",
    "a dot": ".",
    "dots": "...",
    "empty": "",
    "a space": "a b",
    "underscore": "a_b.example",
    "hyphens": "-a-.example",
    "a name of 300": ".".join(["a" * 59] * 5),
    "a port that is none": "example:http",
    "a port too high": "example:99999",
    "no port": "example:",
    "two ports": "example:80:80",
    "only a port": ":8000",
    "IPv6": "[2001:db8::1]:8000",
    "IPv6 without brackets": "2001:db8::1",
    "half of an IPv6": "[2001:db8::1",
    "brackets": "[]",
    "IPv4 with five parts": "1.2.3.4.5",
    "punycode that is none": "xn--a",
    "punycode of nothing": "xn--",
    "percent": "%00.example",
    "user": "alice@example",
    "a path": "example/verify",
    "a star": "*",
    "not ASCII": "b\u00fccher.example",
    "an ideographic dot": "a\u3002b",
    "a ligature": "\ufb01.example",
}
hosts = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


@hosts
def test_the_host_decides_nothing_on_verify_and_healthz(send, alice, host):
    good = f"Authorization: Bearer {alice.key()['token']}"
    assert send("GET", "/healthz", host=host)[0] == 200
    assert send("GET", "/verify", good, host=host)[0] == 200
    assert send("GET", "/verify/a?scope=write", good, host=host)[0] == 403
    assert send("GET", "/verify", host=host)[0] == 401
    assert send("GET", "/verify", good, "Upgrade: websocket", host=host)[0] == 200


@hosts
def test_no_host_makes_an_error_of_ours(send, alice, host):
    session, paths = (
        f"Authorization: Bearer {alice.token}",
        ["/docs/me.md", "/llms.txt"],
    )
    paths += ["/", "/docs", "/openapi.json", "/.well-known/oauth-authorization-server"]
    for path in (*paths, "/api/me", KEYS, f"{KEYS}/audit"):
        status = send("GET", path, session, host=host)[0]
        assert status in (200, 400), path
        assert status == 200 or not path.startswith("/api/"), path
    for method in ("POST", "DELETE"):  # there the host counts
        origin = f"Origin: http://{host}"
        assert send(method, "/api/session", origin, host=host)[0] in (
            200,
            400,
            403,
            415,
        )


# --- addresses ------------------------------------------------------------------------

PROXY = {"REMOTE_ADDR": "192.0.2.9"}
IPV4 = [
    "198.51.100.7",
    "198.51.100.7:40001",
    "198.51.100.7:1",
    "198.51.100.7:65535",
    "::ffff:198.51.100.7",
    "::FFFF:198.51.100.7",
    "::ffff:c633:6407",
    "0:0:0:0:0:ffff:c633:6407",
    "[::ffff:198.51.100.7]:40001",
    "[::ffff:198.51.100.7]",
    "6.6.6.6, 198.51.100.7",
    "6.6.6.6:1,198.51.100.7:2",
    "unknown, 198.51.100.7",
    '"198.51.100.7:40001"',
    " 198.51.100.7 ",
    "198.51.100.7, ",
]
IPV6 = [
    "2001:db8::1",
    "2001:DB8::1",
    "2001:db8:0:0:0:0:0:1",
    "2001:0db8::1",
    "2001:0db8:0000:0000:0000:0000:0000:0001",
    "2001:db8:0:0::1",
    "2001:db8::0:1",
    "2001:db8::0.0.0.1",
    "[2001:db8::1]",
    "[2001:db8::1]:443",
    "[2001:DB8:0::1]:40001",
    '"[2001:db8::1]:443"',
    "2001:db8::1%eth0",
    "[2001:db8::1%eth0]:443",
    "198.51.100.7, 2001:db8::1",
    "_hidden,[2001:db8:0:0:0:0:0:1]:1",
]
NETWORK = [f"2001:db8::{n:x}:{n}" for n in range(1, 6)] + [
    "2001:db8:0:0:ffff:ffff:ffff:ffff",
    "[2001:db8::abcd]:443",
    "2001:DB8::ABCD:1",
    "2001:db8::5.6.7.8",
    "2001:db8:0:0:1::",
    "2001:db8::",
]
NONE = [
    "unknown",
    "Unknown",
    "_hidden",
    "_SEVKISEK",
    "null",
    "-",
    "localhost",
    "198.51.100",
    "198.51.100.7.1",
    "198.51.100.256",
    "198.51.100.07",
    "0xc6.51.100.7",
    "3325256711",
    "[2001:db8::1",
    "2001:db8::1]",
    "2001:db8:::1",
    "2001:db8::12345",
    "2001:db8::/64",
    "[]:443",
    ":443",
    "for=198.51.100.7",
    "198.51.100.7;proto=https",
    "<script>",
    "\u0661.2.3.4",
    "198.51.100.7, unknown",
    ", ,",
    "x" * 500,
]
CANONICAL = (
    [(text, "198.51.100.7") for text in IPV4]
    + [(text, "2001:db8::1") for text in IPV6]
    + [(text, "192.0.2.9") for text in NONE]
    + [
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("::ffff:0:198.51.100.7", "::ffff:0:c633:6407"),
        ("[::1]:9", "::1"),
        ("::", "::"),
        ("FE80::1%25eth0", "fe80::1"),
    ]
)


def forwarded(text):
    # As WSGI has it: each character is one byte that arrived.
    return {"X-Forwarded-For": text.encode().decode("latin-1")}


@pytest.mark.parametrize("text, address", CANONICAL, ids=lambda text: ascii(text[:40]))
def test_an_address_is_written_down_in_its_one_spelling(
    proxied, alice, sql, text, address
):
    """RFC 5952; what is no address is the proxy's."""
    one, two = alice.key(), alice.key()
    alice.call("DELETE", f"{KEYS}/{two['id']}")
    sql("DELETE FROM audit_events")
    http = proxied.test_client()
    there = {"environ_overrides": PROXY}

    def ask(path, token=None, **sent):
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        headers = {**bearer, **forwarded(text)}
        method = "POST" if "json" in sent else "GET"
        call = {"method": method, "headers": headers, **sent, **there}
        return http.open(path, **call).status_code

    wrong = {"username": "nobody", "password": "wrong"}
    assert ask("/api/auth/login", json=wrong) == 401
    assert ask("/verify", two["token"]) == 401
    assert ask("/verify", one["token"]) == 200
    wanted = {"name": "script", "mode": "read", "password": PASSWORD}
    assert ask(KEYS, alice.token, json=wanted) == 201
    rows = sql("SELECT event, ip FROM audit_events ORDER BY id")
    events = ("login_failed", "auth_failed", "created")
    assert rows == [(event, address) for event in events]
    used = "SELECT last_used_ip FROM api_keys WHERE last_used_at IS NOT NULL"
    assert sql(used) == [(address,)]


@pytest.mark.parametrize(
    "said",
    [
        '"',
        '"6.6.6.6',
        '"6.6.6.6"x"',
        'a"b',
        '6.6.6.6, "',
        '"\\',
        '"\\"',
        '"a", "b',
        ',"',
        '"""',
    ],
)
def test_no_quote_that_a_client_opens_hides_its_address(proxied, alice, sql, said):
    """A router adds the address behind what the client said, and closes no quote."""
    key, http = alice.key(), proxied.test_client()
    headers = {"X-Forwarded-For": f"{said}, 198.51.100.7"}
    bearer = {"Authorization": f"Bearer {key['token']}"}
    there = {"environ_overrides": PROXY}
    assert http.get("/verify", headers=headers | bearer, **there).status_code == 200
    wrong = {"username": "nobody", "password": "wrong"}
    answer = http.post("/api/auth/login", json=wrong, headers=headers, **there)
    assert answer.status_code == 401
    assert sql("SELECT last_used_ip FROM api_keys") == [("198.51.100.7",)]
    query = "SELECT ip FROM audit_events WHERE event = 'login_failed'"
    assert sql(query) == [("198.51.100.7",)]


@pytest.mark.parametrize(
    "spellings, other",
    [
        (IPV4, "198.51.100.8:40001"),
        (IPV6, "2001:db8:0:1::1"),
        (NETWORK, "2001:db8:1::1"),
        ([f"198.51.100.7:{40000 + n}" for n in range(12)], "[::ffff:198.51.100.8]:1"),
        (NONE, "192.0.2.10"),
    ],
    ids=["IPv4", "IPv6", "a /64", "ports", "no address"],
)
def test_ten_wrong_log_ins_close_an_address_however_it_is_spelt(
    proxied, sql, spellings, other
):
    http = proxied.test_client()

    def guess(n, text):
        who = {"username": f"nobody{n}", "password": "wrong"}
        call = {"json": who, "headers": forwarded(text), "environ_overrides": PROXY}
        return http.post("/api/auth/login", **call).status_code

    codes = [guess(n, text) for n, text in enumerate(spellings)]
    assert codes == [401] * 10 + [429] * (len(spellings) - 10)
    assert guess(99, other) == 401
    failed = "SELECT count(*) FROM audit_events WHERE event = 'login_failed'"
    assert sql(failed) == [(11,)]


@pytest.mark.parametrize(
    "text, address",
    [
        ("198.51.100.7:40001, 10.0.0.1", "198.51.100.7"),
        ("6.6.6.6, [2001:DB8:0::1]:443, 10.0.0.1:80", "2001:db8::1"),
        ("6.6.6.6, ::ffff:c633:6407, unknown", "198.51.100.7"),
        ("198.51.100.7, unknown, 10.0.0.1", "192.0.2.9"),
        ("unknown, 10.0.0.1", "192.0.2.9"),
        ("10.0.0.1", "192.0.2.9"),
        ("", "192.0.2.9"),
    ],
)
def test_of_several_values_the_one_that_the_first_trusted_proxy_saw_counts(
    app, database_url, sql, text, address
):
    environ = {"DATABASE_URL": database_url, "LATCHKEY_TRUSTED_PROXIES": "2"}
    two = create_app({**environ, "LATCHKEY_BCRYPT_ROUNDS": "4"})
    wrong = {"username": "nobody", "password": "wrong"}
    call = {"json": wrong, "headers": forwarded(text), "environ_overrides": PROXY}
    assert two.test_client().post("/api/auth/login", **call).status_code == 401
    assert sql("SELECT ip FROM audit_events") == [(address,)]
    disconnect(two)


@pytest.mark.parametrize(
    "peer, address",
    [
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("2001:DB8:0::9", "2001:db8::9"),
        ("fe80::9%eth0", "fe80::9"),
        ("", None),
    ],
    ids=["mapped", "IPv6", "with a zone", "a unix socket"],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_of_the_peer_too_it_is_the_canonical_address(
    request, sql, trusted, peer, address
):
    """Whoever is not trusted says what he likes: the peer's address is the one."""
    app = request.getfixturevalue("proxied" if trusted else "app")
    said = "unknown" if trusted else "6.6.6.6"
    headers = {"X-Forwarded-For": said}
    wrong = {"username": "nobody", "password": "wrong"}
    there = {"environ_overrides": {"REMOTE_ADDR": peer}}
    answer = app.test_client().post(
        "/api/auth/login", json=wrong, headers=headers, **there
    )
    assert answer.status_code == 401
    assert sql("SELECT ip FROM audit_events") == [(address,)]


def test_on_a_unix_socket_without_an_address_there_is_none(
    app, database_url, sql, tmp_path
):
    """gunicorn has an empty address there; JSON says null, and the page nothing."""
    path = tmp_path / "socket"
    alice = Person(app, "alice")
    key = alice.key()

    def ask(method, target, token, *headers):
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close"]
        lines += [f"Authorization: Bearer {token}", *headers, "", ""]
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(5)
            wire.connect(str(path))
            wire.sendall("\r\n".join(lines).encode())
            with HTTPResponse(wire, method=method) as answer:
                answer.begin()
                return answer.status, answer.read()

    with on_unix_socket(database_url, path, tmp_path / "log"):
        sql("DELETE FROM audit_events")
        assert ask("GET", "/verify", key["token"]) == (200, b"")
        assert ask("DELETE", f"{KEYS}/{key['id']}", alice.token)[0] == 200
        forged = "X-Forwarded-For: unknown"
        assert ask("GET", "/verify", key["token"], forged) == (401, b"")
        [shown] = json.loads(ask("GET", KEYS, alice.token)[1])["data"]["api_keys"]
        trail = json.loads(ask("GET", f"{KEYS}/audit", alice.token)[1])["data"]["audit"]
    assert shown["last_used_at"] and shown["last_used_ip"] is None
    assert [(entry["event"], entry["ip"]) for entry in trail] == [
        ("auth_failed", None),
        ("revoked", None),
    ]


@contextmanager
def on_unix_socket(database_url, path, log):
    """gunicorn on this unix socket, which trusts one proxy."""
    environ = {name: text for name, text in os.environ.items() if "LATCH" not in name}
    environ |= {"DATABASE_URL": database_url, "LATCHKEY_TRUSTED_PROXIES": "1"}
    with log.open("wb") as out:
        command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
        environ |= {"LATCHKEY_BIND": f"unix:{path}"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=out, stderr=out
        )
    try:
        for _ in range(400):
            if path.exists():
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(40)


# --- bodies that are too large --------------------------------------------------------

TOO_LARGE = {"code": 413, "message": "request entity too large", "data": {}}
CADDYFILE = """{{
	admin off
	auto_https off
}}
http://127.0.0.1:{port} {{
	reverse_proxy {upstream}
}}
"""


@contextmanager
def behind_caddy(url, home):
    """The URL of a Caddy before this server, which passes everything on at once."""
    port = free_port()
    file = home / "Caddyfile"
    file.write_text(CADDYFILE.format(port=port, upstream=url))
    command = [program("caddy", "caddy"), "run", "--config", file]
    environ = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home)}
    with (home / "caddy.log").open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out)
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(params=["straight", "nginx", "caddy"])
def door(request, server, tmp_path):
    """Host and port where a client comes in."""
    with ExitStack() as stack:
        url = server.url
        if request.param == "nginx":  # deploy/nginx.conf, as it is
            url = stack.enter_context(servers.behind_nginx(url, tmp_path))
        if request.param == "caddy":
            url = stack.enter_context(behind_caddy(url, tmp_path))
        yield url.removeprefix("http://")


def chunk(body):
    return b"%x\r\n%b\r\n" % (len(body), body)


def post(door, path, size, chunked, *headers, method="POST"):
    """Status and body of the answer to a body of so many spaces.

    As curl does it, it reads while it sends, and no longer sends once it is answered.
    """
    host, port = door.split(":")
    kind = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {door}", kind, *headers, "", ""]
    piece = b" " * 10_000
    pieces = [chunk(piece) if chunked else piece] * (size // len(piece))
    if chunked:
        pieces.append(b"0\r\n\r\n")

    def send():
        with suppress(ConnectionError):
            for each in ["\r\n".join(lines).encode(), *pieces]:
                wire.sendall(each)

    wire = socket.create_connection((host, port), timeout=30)
    with wire, HTTPResponse(wire, method=method) as answer:
        sender = Thread(target=send)
        sender.start()
        answer.begin()
        told = answer.status, answer.read()
        with suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)  # or it would go on sending
        sender.join()
    return told


framed = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.live
@framed
@pytest.mark.parametrize("size", [20_000, 200_000, 900_000])
@pytest.mark.parametrize(
    "path, kind",
    [
        ("/api/auth/login", AS_JSON),
        (KEYS, AS_JSON),
        ("/oauth/introspect", AS_FORM),
        ("/oauth/revoke", AS_FORM),
        ("/mcp", AS_JSON),
    ],
)
def test_413_reaches_the_client(door, alice, path, kind, size, chunked):
    """A proxy says 502 where the connection is closed while it is still sending."""
    session = f"Authorization: Bearer {alice.token}"
    for closing in ("Connection: close", "Connection: keep-alive"):
        for _ in range(4):
            status, _ = post(door, path, size, chunked, kind, session, closing)
            assert status == 413


@pytest.mark.live
@framed
@pytest.mark.parametrize("size", [200_000, 900_000])
@pytest.mark.parametrize(
    "status, method, path, headers",
    [
        (401, "POST", KEYS, [AS_JSON]),
        (401, "DELETE", f"{KEYS}/a", []),
        (404, "POST", "/nowhere", [AS_JSON]),
        (405, "PUT", "/api/auth/login", [AS_JSON]),
        (415, "POST", "/api/auth/login", [AS_JSON, "Content-Encoding: gzip"]),
        (403, "POST", "/api/session", [AS_JSON, "Sec-Fetch-Site: cross-site"]),
        (200, "GET", "/healthz", []),
    ],
)
def test_every_other_answer_reaches_the_client_too(
    app, door, status, method, path, headers, size, chunked
):
    """Or the 413 of the nginx in front, which lets no such body pass."""
    for closing in ("Connection: close", "Connection: keep-alive"):
        told, _ = post(door, path, size, chunked, *headers, closing, method=method)
        assert told in (status, 413)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.live
@framed
@pytest.mark.parametrize("size", [20_000, 900_000, 5_000_000])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_body_on_verify_never_matters(door, alice, method, size, chunked):
    key = alice.key()
    good, bad = f"Authorization: Bearer {key['token']}", "Authorization: Bearer lk_x"
    for closing in ("Connection: close", "Connection: keep-alive"):
        for bearer, code in ((good, 200), (bad, 401), (good, 200)):
            headers = (bearer, "Content-Type: text/plain", closing)
            told = post(door, "/verify/a", size, chunked, *headers, method=method)
            assert told == (code, b"")


# --- connections that are kept --------------------------------------------------------


@pytest.mark.live
def test_no_connection_that_was_idle_for_two_seconds_is_cut_off(server, alice):
    """A proxy keeps its connections, and sends the next request on one of them."""
    bearer = {"Authorization": f"Bearer {alice.key()['token']}"}
    calls = [
        (200, "GET", "/verify", bearer, None),
        (401, "GET", "/verify", {}, None),
        (401, "POST", "/verify/a", {}, b"x" * 900),
        (200, "GET", "/healthz", {}, None),
        (404, "GET", "/nowhere", {}, None),
        (403, "DELETE", KEYS, bearer, None),
        (400, "POST", "/api/auth/login", {"Content-Type": "application/json"}, b"{}"),
    ]
    connections = [HTTPConnection("127.0.0.1", server.port) for _ in range(100)]
    for turn in range(2):
        for number, connection in enumerate(connections):
            if turn:
                assert connection.sock is not None
                connection.auto_open = False  # it is the same one
            status, method, path, headers, body = calls[number % len(calls)]
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.will_close) == (status, False)
        time.sleep(2.2)
    for connection in connections:
        connection.close()


def test_a_connection_is_kept_longer_than_any_router_does():
    """The routers of Heroku wait for 90 seconds, those of AWS for 60."""
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["keepalive"] > 90


# --- challenges -----------------------------------------------------------------------

NO_TOKEN = {
    "nothing": [],
    "empty": ["Authorization:"],
    "Basic": ["Authorization: Basic YTpi"],
    "basic": ["authorization: basic YTpi"],
    "Digest": ['Authorization: Digest username="a", realm="b"'],
    "Negotiate": ["Authorization: Negotiate YII="],
    "NTLM": ["Authorization: NTLM TlRMTVNTUAAB"],
    "AWS": ["Authorization: AWS4-HMAC-SHA256 Credential=a/b"],
    "DPoP": ["Authorization: DPoP lk_x"],
    "Token": ["Authorization: Token lk_x"],
    "ApiKey": ["Authorization: ApiKey lk_x"],
    "Bearers": ["Authorization: Bearers lk_x"],
    "no scheme": ["Authorization: lk_x"],
    "a scheme only": ["Authorization: Bearer"],
    "a scheme and spaces": ["Authorization: Bearer   "],
    "another header": ["X-API-Key: lk_x"],
    "of a proxy": ["Proxy-Authorization: Bearer lk_x"],
    "in the query": [],
}
TOKEN = [
    "Bearer lk_x",
    "bearer x",
    "BEARER lks_x",
    "Bearer  x",
    "Bearer a b",
    "Bearer =",
]
ASKED = [
    ("GET", "/verify"),
    ("POST", "/verify/a"),
    ("GET", "/api/me"),
    ("POST", "/api/auth/logout"),
    ("GET", KEYS),
    ("POST", KEYS),
    ("DELETE", KEYS),
    ("DELETE", f"{KEYS}/a"),
    ("GET", f"{KEYS}/audit"),
]


@pytest.mark.parametrize("headers", NO_TOKEN.values(), ids=NO_TOKEN)
def test_who_sent_no_bearer_token_is_told_of_no_error(send, headers):
    """RFC 6750, 3.1."""
    for method, path in ASKED:
        status, told, _ = send(method, f"{path}?access_token=lk_x", *headers)
        challenge = told.get_all("WWW-Authenticate")
        assert (status, challenge) == (401, ['Bearer realm="latchkey"']), path


@pytest.mark.parametrize("value", TOKEN)
def test_who_sent_a_bad_bearer_token_is_told_so(send, value):
    for method, path in ASKED:
        status, told, _ = send(method, path, f"Authorization: {value}")
        challenge = 'Bearer realm="latchkey", error="invalid_token"'
        assert (status, told["WWW-Authenticate"]) == (401, challenge), path


def test_who_sent_a_good_key_where_a_session_is_needed_is_told_so(send, alice):
    bearer = f"Authorization: Bearer {alice.key()['token']}"
    for method, path in [*ASKED[2:], ("GET", "/verify?scope=write")]:
        status, told, _ = send(method, path, bearer)
        challenge = 'Bearer realm="latchkey", error="insufficient_scope"'
        assert (status, told["WWW-Authenticate"]) == (403, challenge), path


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Sec-Fetch-Site: cross-site"],
        ["Authorization: Basic YTpi"],
        ["Cookie: latchkey=lks_x"],
        ["Cookie: latchkey=lks_x", "Authorization: Basic YTpi", "Origin: http://evil"],
    ],
    ids=" ".join,
)
def test_another_site_that_is_refused_is_told_of_no_error_of_a_token(
    send, method, headers
):
    status, told, _ = send(method, "/api/session", *headers)
    assert (status, told["WWW-Authenticate"]) == (403, 'Bearer realm="latchkey"')


def test_a_wrong_password_is_no_error_of_a_token(app):
    answer = log_in(app.test_client(), "alice", "wrong")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="latchkey"'
