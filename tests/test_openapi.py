"""The document says what the service does: its routes, its shapes, and under random fire."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from conftest import PASSWORD, log_in
from marshmallow import ValidationError
from openapi_spec_validator import validate
from werkzeug.exceptions import default_exceptions

import errors
from models.base import Refused, db, hung
from routes.portal import TEXTS

DOCUMENTATION = {"portal.openapi", "portal.index", "portal.operation", "portal.llms", "mcp.mcp"}
UNDOCUMENTED = {"portal.account", "static"} | DOCUMENTATION


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


def test_it_is_valid_openapi(api):
    assert api["openapi"] == "3.1.0"
    validate(api)


def test_every_route_is_documented_and_every_operation_is_routed(app, operations):
    routed = {rule.endpoint for rule in app.url_map.iter_rules()} - UNDOCUMENTED
    assert {name.rpartition(".")[2].replace("_", "-") for name in routed} == set(operations)
    assert len(routed) == len(operations)
    adapter = app.url_map.bind("localhost")
    for name, made in operations.items():
        path = re.sub(r"\{\w+\}", "x", made["path"])
        assert adapter.match(path, made["method"])[0].endswith("." + name.replace("-", "_"))


def test_nothing_is_left_unexplained(api, operations):
    def leaves(node, where):
        for name, inner in node.get("properties", {}).items():
            yield f"{where}.{name}", inner
            yield from leaves(inner, f"{where}.{name}")

    for schema, node in api["components"]["schemas"].items():
        if schema != "Answer":  # code, message, data: as the reference has it
            for where, inner in leaves(node, schema):
                assert "description" in inner or where in ("Error.data", "ErrorData.errors"), where
    for made in operations.values():
        assert made["summary"] and made["description"]
        assert all(inner["description"] for inner in made["parameters"])
        assert all(answer["description"] for answer in made["responses"].values())


def test_every_example_fits_its_schema(api, operations):
    for made in operations.values():
        for code, answer in made["responses"].items():
            for media in answer.get("content", {}).values():
                schema = {**media["schema"], "components": api["components"]}
                for example in media["examples"].values():
                    jsonschema.validate(example["value"], relaxed(schema))
                    if "code" in example["value"]:
                        assert example["value"]["code"] == int(code)


def relaxed(schema):
    """writeOnly is not for an answer."""
    if isinstance(schema, dict):
        hidden = {n for n, p in schema.get("properties", {}).items() if p.get("writeOnly")}
        kept = {key: relaxed(value) for key, value in schema.items()}
        if hidden and isinstance(schema.get("required"), list):
            kept["required"] = [name for name in schema["required"] if name not in hidden]
        return kept
    return [relaxed(value) for value in schema] if isinstance(schema, list) else schema


def test_the_examples_carry_the_messages_that_are_sent(operations, alice, bob):
    key = alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    sent = {
        "login": log_in(alice.http, "alice"),
        "me": alice.call("GET", "/api/me"),
        "list-keys": alice.call("GET", "/api/me/api-keys"),
        "create-key": alice.create(),
        "revoke-key": alice.call("DELETE", f"/api/me/api-keys/{key['id']}"),
        "revoke-all-keys": alice.call("DELETE", "/api/me/api-keys"),
        "audit": alice.call("GET", "/api/me/api-keys/audit"),
        "healthz": alice.http.get("/healthz"),
        "logout": alice.call("POST", "/api/auth/logout"),
    }
    for name, answer in sent.items():
        media = operations[name]["responses"][str(answer.status_code)]["content"]
        example = media["application/json"]["examples"]["answer-1"]["value"]
        assert (example["message"], shape(example)) == (answer.json["message"], shape(answer.json))


def example(told):
    return list(told["content"]["application/json"]["examples"].values())[-1]["value"]


VALUES = {"not_found": "f47ac10b-58cc-4372-a567-0e02b2c3d479", "throttled": 60, "busy": 1}
INVALID = {
    "query": ValidationError({"page": ["out_of_range"]}, data={"page": "0"}),
    "body": ValidationError({"password": ["required"]}),
}
REASONS = [(reason, status) for reason, told in TEXTS["refusals"].items() for status in told]


@pytest.mark.parametrize(("reason", "status"), REASONS)
def test_what_docs_toml_says_of_a_refusal_is_what_errors_py_answers(app, reason, status):
    rule = "busy" if status == "503" else reason
    if rule in errors.REFUSALS:
        failure = Refused(rule, VALUES.get(rule, ""))
    elif status == "400":
        failure = INVALID[reason]
    else:
        failure = default_exceptions[int(status)]()
    with app.test_request_context():
        body, code, headers = errors.refusal(failure)
    told = TEXTS["refusals"][reason][status]
    assert (example(told), int(status)) == (body, code)
    assert told.get("headers", {}).keys() == headers.keys()


def test_a_refusal_is_what_the_service_answers(operations, alice, bob):
    """Not only what errors.py would."""
    path, key = "/api/me/api-keys", alice.key()
    wide = {"data": b"x" * 20_000, "content_type": "application/json"}
    bearer = {"headers": {"Authorization": f"Bearer {key['token']}"}}
    sent = [
        ("login", alice.http.post("/api/auth/login", json={"username": "alice"})),
        ("login", alice.http.post("/api/auth/login", data="{}")),
        ("login", log_in(alice.http, "alice", "wrong")),
        ("list-keys", alice.http.get(path)),
        ("list-keys", alice.http.get(path, **bearer)),
        ("list-keys", alice.call("GET", f"{path}?page=0")),
        ("create-key", alice.call("POST", path, **wide)),
        ("create-key", alice.create(password="wrong")),
        ("create-key", [bob.create() for _ in range(6)][-1]),
        ("introspect", alice.http.post("/oauth/introspect", data={"token": "x" * 20_000})),
        ("revoke", alice.http.post("/oauth/revoke", data={"token": "x" * 20_000})),
    ]
    for name, answer in sent:
        told = operations[name]["responses"][str(answer.status_code)]
        assert answer.json == example(told), name
        assert set(told.get("headers", {})) <= set(answer.headers.keys())
    assert {answer.status_code for _, answer in sent} == {400, 401, 403, 409, 413, 415}


def test_every_operation_tells_of_a_database_that_hangs_as_it_is_documented(app, operations, alice):
    with app.app_context():
        engines = set(db.engines.values())
    key = alice.key()["token"]
    service = {"auth": (key.split("_")[1], key), "data": {"token": key}}
    special = {"introspect": service, "revoke": {"data": {"token": key}}}
    hung.update(engines)
    try:
        for name in operations.keys() - {"metadata"}:  # which asks no database
            made, token = operations[name], key if name == "verify" else alice.token
            sent = {"headers": {"Authorization": f"Bearer {token}"}, **special.get(name, {})}
            if name in ("login", "create-key"):
                sent["json"] = made["requestBody"]["content"]["application/json"]["example"]
            answer = alice.http.open(made["path"], method=made["method"], **sent)
            told = made["responses"]["503"]
            assert (answer.status_code, answer.json) == (503, example(told)), name
            assert set(told["headers"]) <= set(answer.headers.keys())
    finally:
        hung.difference_update(engines)


def test_the_words_of_an_operation_are_those_of_its_view(app, operations):
    for endpoint, view in app.view_functions.items():
        if endpoint not in UNDOCUMENTED:
            made = operations[endpoint.rpartition(".")[2].replace("_", "-")]
            assert f"{made['summary']}. {made['description']}" == " ".join(view.__doc__.split())


def shape(value):
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_the_server_is_where_it_is_said_to_be(app, monkeypatch):
    http = app.test_client()
    asked = http.get("/openapi.json", base_url="https://keys.example.org").json
    assert asked["servers"] == [{"url": "https://keys.example.org"}]
    monkeypatch.setitem(app.config, "LATCHKEY_PUBLIC_URL", "https://public.example.org")
    assert http.get("/openapi.json").json["servers"] == [{"url": "https://public.example.org"}]


@pytest.mark.live
def test_schemathesis_finds_nothing(serve, tmp_path):
    """Every check, with data that fits and data that does not, and calls that build on others."""
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
    assert "Tested: 13" in run.stdout
