"""deploy/gateway: real gateways, with the files as they are but for the addresses."""

import json
import os
import subprocess
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import yaml
from servers import ROOT, Server, free_port, program

FILES = ROOT / "deploy/gateway"
IDENTITY = ["X-User-Id", "X-User-Name", "X-Key-Id", "X-Key-Scopes"]


class Echo(BaseHTTPRequestHandler):
    """The service behind the gateway: says what arrived, byte by byte."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        told = {"method": self.command, "path": self.path, "body": body}
        shown = json.dumps(told | {"headers": [list(pair) for pair in self.headers.items()]})
        self.send_response(200)
        self.send_header("Content-Length", str(len(shown)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(shown.encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PROPFIND = answer

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def service():
    ThreadingHTTPServer.block_on_close = False  # a gateway keeps its connections open
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever).start()
        yield echo.server_port
        echo.shutdown()


def nginx(home, text):
    user = "user root;" if os.getuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
    frame = f"{user} daemon off; pid {home}/pid; error_log stderr; events {{}}\n"
    (home / "conf").write_text(f"{frame} http {{ access_log off; {places}\n{text} }}")
    return [program("nginx", "nginx"), "-e", "stderr", "-c", home / "conf"]


def caddy(home, text):
    (home / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    return [program("caddy", "caddy"), "run", "--config", home / "Caddyfile"]


def haproxy(home, text):
    (home / "haproxy.cfg").write_text(text)
    return [program("haproxy", "haproxy"), "-db", "-f", home / "haproxy.cfg"]


GATEWAYS = {
    "nginx": (nginx, ["nginx.conf"], "listen 80;"),
    "caddy": (caddy, ["Caddyfile"], ":80 {"),
    "haproxy": (haproxy, ["haproxy.lua", "haproxy.cfg"], "bind :80"),
}


@pytest.fixture(scope="module", params=GATEWAYS)
def running(request, migrated_app, database_url, service, tmp_path_factory):
    """A client of the gateway, which has its own port; ``latchkey`` is the server it asks."""
    tmp_path = tmp_path_factory.mktemp(request.param)
    (command, files, listen), port = GATEWAYS[request.param], free_port()
    latchkey = Server(database_url, tmp_path / "latchkey.log")
    for name in files:
        text = (FILES / name).read_text()
        for ours, tests in (
            ("127.0.0.1:8000", f"127.0.0.1:{latchkey.port}"),
            ("127.0.0.1:9000", f"127.0.0.1:{service}"),
            ("/etc/haproxy/", f"{tmp_path}/"),
            (listen, listen.replace(":80", f":{port}").replace(" 80", f" 127.0.0.1:{port}")),
        ):
            text = text.replace(ours, tests)
        (tmp_path / name).write_text(text)
    environ = {**os.environ, "HOME": str(tmp_path)}
    log = (tmp_path / "log").open("w")
    started = subprocess.Popen(command(tmp_path, text), env=environ, stdout=log, stderr=log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
        http.latchkey, http.name = latchkey, request.param
        for _ in range(100):
            try:
                http.get("/")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield http
    started.terminate()
    started.wait(20)
    log.close()
    latchkey.stop()


@pytest.fixture
def gateway(app, running):
    return running


def bearer(key, *more):
    return [("Authorization", f"Bearer {key['token']}"), *more]


def test_a_good_key_arrives_as_an_identity_and_its_token_does_not(gateway, alice):
    key = alice.key(mode="write")
    for method in ("GET", "POST", "PROPFIND"):
        answer = gateway.request(method, "/a?b=c", headers=bearer(key), content=b"body")
        told = answer.json()
        assert (told["method"], told["path"], told["body"]) == (method, "/a?b=c", "body")
        arrived = {name.lower(): value for name, value in told["headers"]}
        who = [key["user_id"], "alice", key["id"], "read write"]
        assert [arrived[name.lower()] for name in IDENTITY] == who
        assert "authorization" not in arrived and key["token"] not in answer.text
    assert gateway.head("/", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "forged",
    [
        [(name, "6.6.6.6") for name in IDENTITY],
        [(name.lower(), "6.6.6.6") for name in IDENTITY * 2],
        [(name.replace("-", "_"), "6.6.6.6") for name in IDENTITY],
        [("X_User-Id", "6.6.6.6"), ("X-User_Id", "6.6.6.6"), ("x-KEY_scopes", "6.6.6.6")],
    ],
    ids=["once", "twice", "underscores", "mixed"],
)
def test_what_a_client_calls_itself_never_arrives(gateway, alice, forged):
    key = alice.key()
    answer = gateway.get("/", headers=bearer(key, *forged))
    assert answer.status_code == 200 and "6.6.6.6" not in answer.text
    arrived = [name.lower() for name, _ in answer.json()["headers"]]
    assert [arrived.count(name.lower()) for name in IDENTITY] == [1] * 4


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PROPFIND"])
def test_a_read_key_does_not_write_whatever_the_client_says(gateway, alice, method):
    lies = [("X-Original-Method", "GET"), ("X-Forwarded-Method", "GET")]
    lies.append(("X-HTTP-Method-Override", "GET"))
    key = alice.key()
    assert gateway.get("/", headers=bearer(key)).status_code == 200
    answer = gateway.request(method, "/?scope=read", headers=bearer(key, *lies))
    assert answer.status_code == 403
    check_refused(answer, "insufficient_scope")


def test_without_a_good_key_nobody_gets_in(gateway, alice):
    key = alice.key()
    for headers in ([], bearer({"token": key["token"][:-1]}), bearer(alice.__dict__)):
        answer = gateway.get("/", headers=headers)
        assert answer.status_code == 401
        check_refused(answer, "invalid_token")


def check_refused(answer, error):
    challenges = answer.headers.get_list("WWW-Authenticate")
    assert challenges == [f'Bearer realm="latchkey", error="{error}"']
    assert not [name for name in IDENTITY if name in answer.headers]
    assert "user_id" not in answer.text


def test_a_revoked_key_is_dead_on_the_very_next_request(gateway, alice):
    for _ in range(5):
        key = alice.key()
        assert gateway.get("/", headers=bearer(key)).status_code == 200
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
        assert gateway.get("/", headers=bearer(key)).status_code == 401


@pytest.mark.parametrize("path", ["/%2e%2e/x", "//x", "/a%2fb", "/_latchkey", "/verify", "/x;y"])
def test_no_path_goes_around_the_check(gateway, alice, path):
    connection = HTTPConnection(gateway.base_url.host, gateway.base_url.port)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status in (400, 401, 404) and b"headers" not in body


def test_while_latchkey_is_down_nobody_gets_in(gateway, alice):
    key = alice.key()
    gateway.latchkey.stop()
    answer = gateway.get("/", headers=bearer(key))
    assert answer.status_code in (500, 502, 503) and "headers" not in answer.text


@pytest.mark.parametrize("name", ["traefik.yml", "envoy.yaml"])
def test_what_cannot_be_run_here_is_yaml_and_says_so(name):
    text = (FILES / name).read_text()
    assert yaml.safe_load(text) and text.startswith("# Not run by the tests.")
