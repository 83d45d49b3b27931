"""The document says what the service does: routes, shapes, and under random fire."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from conftest import PASSWORD, log_in
from oidc import settings
from openapi_spec_validator import validate
from servers import disconnect
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import create_app
from models.api_key import ApiKey
from models.database import db
from models.session import Session
from models.user import User
from models.verification import Verifier

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools/make_openapi.py"
UNDOCUMENTED = {"account_page", "docs", "mcp"}  # blueprints
SESSION_ONLY = "Interactive-session only — cannot be called with an API key."
WHO = {
    "login": "Anyone may call it",
    "verify": "Called with the API key to verify",
    "metrics": "Called with any API key",
    "healthz": "Anyone may call it",
    "introspect": "The caller authenticates with an API key of its own",
    "revoke": "Anyone may call it",
    "metadata": "Anyone may call it",
}


@pytest.fixture
def api(app):
    return app.test_client().get("/openapi.json").json


@pytest.fixture
def operations(api):
    return {
        made["operationId"]: {"path": path, "method": method.upper(), **made}
        for path, item in api["paths"].items()
        for method, made in item.items()
    }


@pytest.fixture
def follow(api):
    """What a part of the document says, which may be a reference."""

    def get(node):
        while "$ref" in node:
            target = api
            for name in node["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            node = target
        return node

    return get


@pytest.fixture
def response(operations, follow):
    """What is documented of an operation's response with this status."""

    def get(name, status):
        return follow(operations[name]["responses"][str(status)])

    return get


@pytest.fixture
def examples(follow):
    """The values of a response's examples."""

    def get(told):
        [media] = told["content"].values()
        return [follow(each)["value"] for each in media["examples"].values()]

    return get


@pytest.fixture
def fits(api):
    """Plain JSON Schema, without OpenAPI's reading of anything; with formats."""

    def check(value, schema):
        whole = {**schema, "components": api["components"]}
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.Draft202012Validator(whole, format_checker=checker).validate(value)

    return check


def test_it_is_valid_openapi(api):
    assert api["openapi"] == "3.1.0"
    validate(api)


def test_every_route_is_documented_and_every_operation_is_routed(app, operations):
    routed = {
        rule.endpoint
        for rule in app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] not in UNDOCUMENTED
    }
    names = {name.rpartition(".")[2].replace("_", "-") for name in routed}
    assert len(names) == len(routed)
    assert names == operations.keys() - {"verify"}  # which is in front of Flask
    adapter = app.url_map.bind("localhost")
    for name in names:
        path = re.sub(r"\{\w+\}", "x", operations[name]["path"])
        endpoint = adapter.match(path, operations[name]["method"])[0]
        assert endpoint.endswith("." + name.replace("-", "_"))
    assert app.test_client().get(operations["verify"]["path"]).status_code == 401


def test_nothing_is_left_unexplained(api, operations, follow):
    for schema, node in api["components"]["schemas"].items():
        if schema.endswith("Answer"):
            continue  # code, message, data: as the reference has it
        for name, inner in node.get("properties", {}).items():
            assert {**follow(inner), **inner}["description"], f"{schema}.{name}"
            assert "properties" not in inner  # it has a name and is here itself
    for made in operations.values():
        assert made["summary"] and made["description"]
        for inner in made.get("parameters", []):
            assert follow(inner)["description"]
        for answer in made["responses"].values():
            assert follow(answer)["description"]
    assert all(tag["description"] for tag in api["tags"])
    assert api["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert api["info"]["contact"]


def test_every_operation_says_who_may_call_it(operations):
    for name, made in operations.items():
        assert WHO.get(name, SESSION_ONLY) in made["description"]
        assert (made["security"] == [{"session": []}]) == (name not in WHO)
        assert (made["security"] == []) == (WHO.get(name) == "Anyone may call it")


def test_every_example_fits_its_schema(operations, follow, examples, fits):
    for made in operations.values():
        body = follow(made.get("requestBody", {}))
        for media in body.get("content", {}).values():
            fits(media["example"], media["schema"])
        for parameter in made.get("parameters", []):
            parameter = follow(parameter)
            if "example" in parameter:
                fits(parameter["example"], parameter["schema"])
        for code, answer in made["responses"].items():
            answer = follow(answer)
            for media in answer.get("content", {}).values():
                for example in examples(answer):
                    fits(example, media["schema"])
                    if "code" in example:
                        assert example["code"] == int(code)


def test_a_body_and_an_answer_have_schemas_of_their_own(api):
    """One for both ways is what broke every generated client."""
    text = str(api)
    assert "readOnly" not in text and "writeOnly" not in text and "Z$" not in text
    schemas = api["components"]["schemas"]
    assert "password" not in schemas["Key"]["properties"]
    assert "key_public" not in schemas["NewKey"]["properties"]
    for name in ("User", "Session", "Key", "CreatedKey", "AuditEvent", "Pagination"):
        assert schemas[name]["required"] == list(schemas[name]["properties"])


def introspect(http, key, **form):
    pair = (key["key_public"], key["token"])
    return http.post("/oauth/introspect", auth=pair, data=form)


def change_password(person, password, new_password=PASSWORD):
    passwords = {"password": password, "new_password": new_password}
    return person.call("POST", "/api/me/password", json=passwords)


def test_the_examples_are_what_is_answered(response, examples, fits, alice, bob):
    key = alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    service = bob.key(mode="write")
    sent = {
        "login": log_in(alice.http, "alice"),
        "me": alice.call("GET", "/api/me"),
        "list-keys": alice.call("GET", "/api/me/api-keys"),
        "create-key": alice.create(),
        "change-password": change_password(alice, PASSWORD),
        "revoke-key": alice.call("DELETE", f"/api/me/api-keys/{key['id']}"),
        "revoke-all-keys": alice.call("DELETE", "/api/me/api-keys"),
        "list-audit-events": alice.call("GET", "/api/me/api-keys/audit"),
        "healthz": alice.http.get("/healthz"),
        "logout": alice.call("POST", "/api/auth/logout"),
        "introspect": introspect(alice.http, service, token=service["token"]),
        "metadata": alice.http.get("/.well-known/oauth-authorization-server"),
    }
    for name, answer in sent.items():
        told = response(name, answer.status_code)
        fits(answer.json, told["content"]["application/json"]["schema"])
        example = examples(told)[0]
        assert shape(example) == shape(answer.json), name
        assert example.get("message") == answer.json.get("message")
    assert (
        examples(response("introspect", 200))[1]
        == introspect(alice.http, service, token="x").json
    )
    revoked = alice.http.post("/oauth/revoke", data={"token": service["token"]})
    assert (revoked.status_code, revoked.data) == (200, b"")
    assert "content" not in response("revoke", 200)


def shape(value):
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_verify_answers_in_headers_as_documented(response, alice, verify):
    key = alice.key()
    verdicts = [
        verify(key["token"]),
        verify("nonsense"),
        verify(key["token"], "/verify?scope=write"),
    ]
    assert [verdict.status_code for verdict in verdicts] == [200, 401, 403]
    for verdict in verdicts:
        told = response("verify", verdict.status_code)
        assert "content" not in told and verdict.data == b""
        assert set(told["headers"]) <= set(verdict.headers.keys())


@pytest.fixture
def documented(response, examples, fits, follow):
    """That an answer is, word for word, an example of the document."""

    def check(name, answer):
        told = response(name, answer.status_code)
        assert answer.json in examples(told), name
        assert set(told.get("headers", {})) <= set(answer.headers.keys())
        fits(answer.json, told["content"]["application/json"]["schema"])
        return name, answer.status_code, examples(told).index(answer.json)

    return check


@pytest.fixture
def sign_in_again(app, database_url):
    """What somebody without a password is told whose sign-in is long ago."""
    environ = {"DATABASE_URL": database_url, **settings("https://id.example")}
    latchkey = create_app(environ)
    with latchkey.app_context():
        session = Session.start(User(username="erin"))
        db.session.commit()
    answer = latchkey.test_client().post(
        "/api/me/api-keys",
        json={"name": "script", "mode": "read"},
        headers={"Authorization": f"Bearer {session.token}"},
    )
    disconnect(latchkey)
    return answer


def test_a_refusal_is_what_the_document_says(
    app,
    operations,
    response,
    examples,
    documented,
    alice,
    bob,
    sign_in_again,
    monkeypatch,
):
    """Every example of every refusal that an operation has is one that was provoked."""
    path, key = "/api/me/api-keys", alice.key()
    lost = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
    bearer = {"headers": {"Authorization": f"Bearer {key['token']}"}}
    wide = {"data": b"x" * 20_000, "content_type": "application/json"}
    packed = {"headers": {"Content-Encoding": "gzip"}}
    token = {"data": {"token": "x" * 20_000}}
    sessions = {
        "logout": ("POST", "/api/auth/logout"),
        "change-password": ("POST", "/api/me/password"),
        "me": ("GET", "/api/me"),
        "list-keys": ("GET", path),
        "create-key": ("POST", path),
        "revoke-all-keys": ("DELETE", path),
        "revoke-key": ("DELETE", f"{path}/{lost}"),
        "list-audit-events": ("GET", f"{path}/audit"),
    }
    full = [bob.create() for _ in range(6)][-1]
    no_password = {"name": "script", "mode": "read"}
    no_old = {"new_password": PASSWORD}
    sent = [
        ("login", alice.http.post("/api/auth/login", json={"username": "alice"})),
        ("login", alice.http.post("/api/auth/login", data="{}")),
        ("login", alice.http.post("/api/auth/login", **wide)),
        ("login", log_in(alice.http, "alice", "wrong")),
        ("list-keys", alice.call("GET", f"{path}?page=0")),
        ("list-audit-events", alice.call("GET", f"{path}/audit?page=0")),
        ("create-key", alice.call("POST", path, json=no_password)),
        ("create-key", alice.call("POST", path, **wide)),
        ("create-key", alice.call("POST", path, data="{}")),
        ("create-key", alice.create(password="wrong")),
        ("create-key", full),
        ("change-password", alice.call("POST", "/api/me/password", json=no_old)),
        ("change-password", change_password(alice, "wrong")),
        ("change-password", change_password(alice, PASSWORD, "short")),
        ("change-password", alice.call("POST", "/api/me/password", **wide)),
        ("change-password", alice.call("POST", "/api/me/password", data="{}")),
        ("create-key", sign_in_again),
        ("revoke-key", alice.call("DELETE", f"{path}/{lost}")),
        ("introspect", introspect(alice.http, key)),
        ("introspect", alice.http.post("/oauth/introspect", data={"token": "x"})),
        ("introspect", alice.http.post("/oauth/introspect", **token)),
        ("introspect", alice.http.post("/oauth/introspect", **packed)),
        ("metrics", alice.http.get("/metrics")),
        ("revoke", alice.http.post("/oauth/revoke", data={"token": ""})),
        ("revoke", alice.http.post("/oauth/revoke", **token)),
        ("revoke", alice.http.post("/oauth/revoke", **packed)),
    ]
    for name, (method, where) in sessions.items():
        sent.append((name, alice.http.open(where, method=method)))
        sent.append((name, alice.http.open(where, method=method, **bearer)))
    monkeypatch.setitem(app.config, "LATCHKEY_LOGIN_FAILURES", 1)
    sent.append(("login", log_in(alice.http, "alice", "wrong")))
    sent.append(("create-key", alice.create(password="wrong")))
    sent.append(("change-password", change_password(alice, "wrong")))
    seen = {documented(name, answer) for name, answer in sent}
    for name, made in operations.items():
        for status in map(int, made["responses"]):
            if 400 <= status < 500 and name != "verify":
                for n in range(len(examples(response(name, status)))):
                    assert (name, status, n) in seen


def test_an_unforeseen_error_is_as_documented(documented, alice, monkeypatch):
    def fail(*args):
        raise RuntimeError("a secret")

    monkeypatch.setattr(ApiKey, "list_of", fail)
    answer = alice.call("GET", "/api/me/api-keys")
    assert documented("list-keys", answer)[:2] == ("list-keys", 500)


def test_every_operation_says_503_as_documented_when_the_database_does_not_answer(
    app, operations, response, follow, documented, alice, monkeypatch
):
    def hang(*args, **kwargs):
        raise PoolTimeout

    key = alice.key()["token"]
    service = {"auth": (key.split("_")[1], key), "data": {"token": key}}
    special = {"introspect": service, "revoke": {"data": {"token": key}}}
    monkeypatch.setattr("sqlalchemy.pool.QueuePool.connect", hang)
    monkeypatch.setattr(Verifier, "first_row", hang)
    for name in operations.keys() - {"metadata"}:  # which asks no database
        made = operations[name]
        token = key if name in ("verify", "metrics") else alice.token
        sent = {"headers": {"Authorization": f"Bearer {token}"}}
        sent |= special.get(name, {})
        if name in ("login", "create-key", "change-password"):
            sent["json"] = made["requestBody"]["content"]["application/json"]["example"]
        answer = alice.http.open(made["path"], method=made["method"], **sent)
        assert answer.status_code == 503, name
        assert answer.headers["Retry-After"]
        if name == "verify":
            assert answer.data == b"" and "content" not in response(name, 503)
        else:
            documented(name, answer)
    assert "503" not in operations["metadata"]["responses"]


def test_the_server_is_where_it_is_said_to_be(app, monkeypatch):
    http = app.test_client()
    asked = http.get("/openapi.json", base_url="https://keys.example.org").json
    assert asked["servers"] == [{"url": "https://keys.example.org"}]
    monkeypatch.setitem(app.config, "LATCHKEY_PUBLIC_URL", "https://public.example.org")
    asked = http.get("/openapi.json").json
    assert asked["servers"] == [{"url": "https://public.example.org"}]


def test_the_limits_of_expiry_are_the_configured_ones(database_url):
    limits = {"LATCHKEY_DEFAULT_EXPIRY_DAYS": "7", "LATCHKEY_MAX_EXPIRY_DAYS": "30"}
    http = create_app({"DATABASE_URL": database_url, **limits}).test_client()
    schemas = http.get("/openapi.json").json["components"]["schemas"]
    days = schemas["ExpiresInDays"]
    assert (days["minimum"], days["default"], days["maximum"]) == (1, 7, 30)
    for path in ("/docs/create-key", "/docs/create-key.md"):
        text = re.sub("</?code>|`", "", http.get(path).text)
        assert "From 1 to 30. Default: 7." in text


# --- the file -----------------------------------------------------------------------


def make(*words, **environ):
    return subprocess.run(
        [sys.executable, TOOL, *words],
        cwd="/",
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("optimize", ["", "2"])
def test_the_committed_file_is_up_to_date(optimize):
    """Without docstrings too: PYTHONOPTIMIZE=2 changes no document."""
    checked = make("--check", PYTHONOPTIMIZE=optimize)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_stale_file_is_found_and_left_alone(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_openapi", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    target = tmp_path / "openapi.json"
    monkeypatch.setattr(tool, "TARGET", target)
    monkeypatch.setattr(sys, "argv", ["make_openapi.py", "--check"])
    for content in (None, "{}"):
        if content:
            target.write_text(content)
        with pytest.raises(SystemExit) as caught:
            tool.main()
        assert "stale" in caught.value.code and "\n" not in caught.value.code
        assert target.exists() == bool(content)
    monkeypatch.setattr(sys, "argv", ["make_openapi.py"])
    tool.main()
    assert target.read_text() == (ROOT / "extras/docs/openapi.json").read_text()


# --- schemathesis -------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.long
def test_schemathesis_finds_nothing(serve, tmp_path):
    """Every check, with data that fits and does not, and calls that build on others."""
    generous = {"LATCHKEY_MAX_ACTIVE_KEYS": "1000", "LATCHKEY_LOGIN_FAILURES": "1000"}
    server, here = serve(**generous), Path(__file__).parent
    known = {"LATCHKEY_URL": server.url, "LATCHKEY_PASSWORD": PASSWORD}
    known |= {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(here)}
    run = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "--config-file"]
        + [here / "schemathesis.toml", "run", f"{server.url}/openapi.json"]
        + ["--max-examples", "25", "--max-failures", "5", "--seed", "1"],
        cwd=tmp_path,
        env={**os.environ, **known},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout
    assert "No issues found" in run.stdout
    assert "Tested: 14" in run.stdout
