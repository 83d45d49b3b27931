"""The MCP server on the wire: both eras of the protocol, and what each refuses."""

import base64
import time

import pytest

META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
ME = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}
HANDSHAKE = ["2025-11-25", "2025-06-18"]
BATCHES = "2025-03-26"  # a revision whose servers have to take batches
TOOLS = ["list_endpoints", "search_docs", "get_endpoint"]


@pytest.fixture
def post(app):
    def send(body, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        how = {"data": body} if isinstance(body, bytes) else {"json": body}
        return app.test_client().post("/mcp", headers=named, **how)

    return send


@pytest.fixture
def modern(post):
    def send(method, meta=ME, headers=(), **params):
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": method,
            "params": {**params, "_meta": meta},
        }
        named = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        named |= {"Mcp-Name": params["name"]} if "name" in params else {}
        return post(
            body, **{n: v for n, v in (named | dict(headers)).items() if v is not None}
        )

    return send


@pytest.fixture
def legacy(post):
    def send(method, *, version="2025-11-25", **params):
        body = {"jsonrpc": "2.0", "id": "a", "method": method, "params": params}
        return post(body, **({"MCP-Protocol-Version": version} if version else {}))

    return send


def error(answer):
    return answer.status_code, answer.json["error"]["code"]


def text(answer):
    assert answer.status_code == 200
    (content,) = answer.json["result"]["content"]
    return content["text"], answer.json["result"]["isError"]


def test_it_works(modern, legacy):
    for answer in (
        modern("tools/list"),
        legacy("tools/list"),
        legacy("tools/list", version=None),
    ):
        assert answer.status_code == 200 and answer.content_type == "application/json"
        assert [tool["name"] for tool in answer.json["result"]["tools"]] == TOOLS


def test_a_modern_answer_says_what_it_is_and_how_long_it_is_good(modern):
    listed = modern("tools/list").json["result"]
    assert (listed["resultType"], listed["ttlMs"], listed["cacheScope"]) == (
        "complete",
        3_600_000,
        "public",
    )
    called = modern("tools/call", name="list_endpoints").json["result"]
    assert called["resultType"] == "complete" and "ttlMs" not in called
    assert called["_meta"][f"{META}serverInfo"]["name"] == "latchkey"


def test_discover_names_every_version(modern):
    found = modern("server/discover").json["result"]
    assert found["supportedVersions"] == [MODERN, *HANDSHAKE]
    assert found["capabilities"] == {"tools": {}}
    assert found["ttlMs"] and found["resultType"] == "complete"


@pytest.mark.parametrize("version", HANDSHAKE)
def test_the_handshake_agrees_on_the_version_of_the_client(legacy, version):
    result = legacy(
        "initialize", version=None, protocolVersion=version, capabilities={}
    ).json
    assert result["id"] == "a"
    assert result["result"]["protocolVersion"] == version
    assert result["result"]["capabilities"] == {"tools": {}}
    assert legacy("ping", version=version).json["result"] == {}
    called = legacy("tools/list", version=version).json["result"]
    assert called.keys() == {"tools"}


@pytest.mark.parametrize("version", ["2024-11-05", BATCHES, None, 7, ["2025-11-25"]])
def test_the_handshake_offers_the_newest_to_a_client_of_an_unknown_version(
    legacy, version
):
    result = legacy("initialize", version=None, protocolVersion=version).json["result"]
    assert result["protocolVersion"] == "2025-11-25"


# --- the tools ----------------------------------------------------------------------


def test_list_endpoints_lists_all(app, modern):
    said, failed = text(modern("tools/call", name="list_endpoints"))
    api = app.test_client().get("/openapi.json").json
    assert not failed
    for path, item in api["paths"].items():
        for method in item:
            assert f"[{method.upper()} {path}]" in said


@pytest.mark.parametrize(
    "path",
    [
        "/api/me/api-keys/{id}",
        "/me/api-keys/{id}",
        "/api/me/api-keys/f47ac10b",
        "/me/api-keys/{key}/",
    ],
)
def test_get_endpoint_is_the_markdown_page(app, modern, path):
    said = text(
        modern(
            "tools/call",
            name="get_endpoint",
            arguments={"method": "delete", "path": path},
        )
    )
    assert said == (app.test_client().get("/docs/revoke-key.md").text, False)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("revoke an API key", "- DELETE /api/me/api-keys/{id}: "),
        ("REVOKE a key", "- DELETE /api/me/api-keys/{id}: "),
        ("how do I revoke an api key?", "- DELETE /api/me/api-keys/{id}: "),
        ("create an API key", "- POST /api/me/api-keys: "),
        ("list api keys", "- GET /api/me/api-keys: "),
        ("verify an API key", "- GET /verify: "),
        ("revoke all keys", "- DELETE /api/me/api-keys: "),
        ("sign in", "- POST /api/auth/login: "),
        ("delete key", "- DELETE /api/me/api-keys/{id}: "),
        ("audit events", "- GET /api/me/api-keys/audit: "),
        ("introspect", "- POST /oauth/introspect: "),
        ("X-Key-Scopes", "- GET /verify: "),
    ],
)
def test_search_finds_the_page(modern, query, first):
    said, failed = text(
        modern("tools/call", name="search_docs", arguments={"query": query})
    )
    assert said.startswith(first) and not failed
    assert len(said.splitlines()) <= 5


def test_search_says_when_there_is_nothing(legacy):
    said, failed = text(
        legacy("tools/call", name="search_docs", arguments={"query": "zebra"})
    )
    assert said.startswith("Nothing found.") and not failed


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_endpoint", {"method": "GET", "path": "/nope"}),
        ("get_endpoint", {"method": "GET"}),
        ("get_endpoint", {"method": "GET", "path": None}),
        ("get_endpoint", {}),
        ("search_docs", {"query": 7}),
        ("search_docs", {}),
    ],
)
def test_a_wrong_argument_is_a_result_that_the_model_can_read(modern, name, arguments):
    said, failed = text(modern("tools/call", name=name, arguments=arguments))
    assert (
        said.startswith("There is no such endpoint, or the arguments are not these:")
        and failed
    )
    (tool,) = (
        t for t in modern("tools/list").json["result"]["tools"] if t["name"] == name
    )
    assert f"{name} takes {' and '.join(tool['inputSchema']['required'])}" in said


def test_an_argument_too_many_does_no_harm(modern):
    """Models like to fill in something where a tool takes nothing."""
    said, failed = text(
        modern("tools/call", name="list_endpoints", arguments={"reason": "x"})
    )
    assert said.startswith("# Latchkey API") and not failed


# --- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("nope", {}, -32601),
        ("server/discover", {}, -32601),
        ("tools/call", {"name": "nope"}, -32602),
        ("tools/call", {"name": ["list_endpoints"]}, -32602),
        ("tools/call", {"name": "list_endpoints", "arguments": []}, -32602),
    ],
)
@pytest.mark.parametrize("version", [*HANDSHAKE, None])
def test_an_error_reaches_a_handshake_client_in_http_200(
    legacy, method, params, code, version
):
    answer = legacy(method, version=version, **params)
    assert error(answer) == (200, code)
    assert answer.json["id"] == "a"


def test_params_that_are_no_object_reach_a_handshake_client_in_http_200(post):
    assert error(post({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []})) == (
        200,
        -32602,
    )


@pytest.mark.parametrize("method", ["nope", "initialize", "ping", "resources/list"])
def test_a_modern_client_gets_404_for_a_method_that_is_not_there(modern, method):
    assert error(modern(method)) == (404, -32601)


def test_a_method_that_is_not_there_may_name_a_resource(modern):
    answer = modern(
        "resources/read", headers={"Mcp-Name": "file:///a"}, uri="file:///a"
    )
    assert error(answer) == (404, -32601)


def test_a_modern_client_gets_400_for_a_tool_that_is_not_there(modern):
    assert error(modern("tools/call", name="nope")) == (400, -32602)


@pytest.mark.parametrize(
    "headers",
    [
        {"Mcp-Method": "tools/list"},
        {"Mcp-Method": "TOOLS/CALL"},
        {"Mcp-Method": None},
        {"Mcp-Name": "search_docs"},
        {"Mcp-Name": None},
        {"Mcp-Name": "=?base64?!?="},
        {"Mcp-Name": "=?base64?/w==?="},
        {"MCP-Protocol-Version": None},
        {"MCP-Protocol-Version": "2025-11-25"},
        {"MCP-Protocol-Version": "2030-01-01"},
    ],
    ids=str,
)
def test_headers_must_equal_the_body(modern, headers):
    assert error(modern("tools/call", name="list_endpoints", headers=headers)) == (
        400,
        -32020,
    )


def test_a_name_may_come_in_base64(modern):
    encoded = f"=?base64?{base64.b64encode(b'list_endpoints').decode()}?="
    assert (
        "error"
        not in modern(
            "tools/call", name="list_endpoints", headers={"Mcp-Name": encoded}
        ).json
    )


@pytest.mark.parametrize("version", ["", 7, "2025-11-25", "nonsense"])
def test_the_header_says_the_version_of_the_body(modern, version):
    """As it is: only method and name may come in base64."""
    meta = {**ME, f"{META}protocolVersion": version}
    encoded = base64.b64encode(str(version).encode()).decode()
    for header in (MODERN, f"=?base64?{encoded}?="):
        answer = modern("tools/list", meta, {"MCP-Protocol-Version": header})
        assert error(answer) == (400, -32020)


@pytest.mark.parametrize("version", ["2030-01-01", "2025-11-25", "nonsense"])
def test_a_version_that_no_request_can_state_is_refused(modern, version):
    meta = {**ME, f"{META}protocolVersion": version}
    answer = modern("tools/list", meta, {"MCP-Protocol-Version": version})
    assert error(answer) == (400, -32022)
    assert answer.json["error"]["data"] == {
        "supported": [MODERN, *HANDSHAKE],
        "requested": version,
    }


@pytest.mark.parametrize("version", ["2024-11-05", BATCHES, ""])
def test_an_unknown_version_in_the_header_alone_is_refused(post, version):
    body = {"jsonrpc": "2.0", "id": "a", "method": "tools/list"}
    answer = post(body, MCP_Protocol_Version=version)
    assert error(answer) == (400, -32022)
    assert answer.json["error"]["data"]["requested"] == version


@pytest.mark.parametrize(
    "meta",
    [
        {},
        None,
        [],
        {f"{META}protocolVersion": MODERN},
        {f"{META}clientCapabilities": {}},
        {**ME, f"{META}clientCapabilities": None},
    ],
    ids=str,
)
def test_a_modern_request_says_its_version_and_capabilities(modern, meta):
    assert error(modern("tools/list", meta)) == (400, -32602)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 16_000, -32700),
        (b"[" * 500 + b"]" * 500, -32600),
        (b"[" + b"{}," * 500 + b"1]", -32700),
        (b'{"jsonrpc": "2.0", "method": "ping", "id": ' + b"9" * 5000 + b"}", -32700),
        ([], -32600),
        ([{"jsonrpc": "2.0", "id": 1, "method": "ping"}], -32600),
        ("text", -32600),
        ({"id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": 1}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": 1}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": True, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, -32600),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_one_message_is_refused(post, body, code):
    answer = post(body)
    assert error(answer) == (400, code)
    assert "id" not in answer.json


def test_a_body_over_16_kib_is_refused(post):
    assert error(post(b" " * (16 * 1024 + 1))) == (413, -32700)


def test_a_compressed_body_is_refused(post):
    assert error(post(b"{}", Content_Encoding="gzip")) == (415, -32700)


@pytest.mark.parametrize("name", [None, 7, {}, [["list_endpoints"]], "x" * 10_000])
def test_a_name_may_be_anything_and_costs_no_error_of_ours(legacy, modern, name):
    assert error(legacy("tools/call", name=name)) == (200, -32602)
    answer = modern("tools/call", headers={"Mcp-Name": "list_endpoints"}, name=name)
    assert error(answer) == (400, -32020)


@pytest.mark.parametrize(
    "method", ["notifications/initialized", "notifications/cancelled", "nope"]
)
def test_a_notification_gets_202_and_nothing(post, method):
    answer = post({"jsonrpc": "2.0", "method": method})
    assert (answer.status_code, answer.data) == (202, b"")


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_is_no_stream_and_no_session(app, method):
    answer = app.test_client().open("/mcp", method=method)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:6274", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:80", True),
        ("https://keys.example.org", True),
        ("http://keys.example.org", False),
        ("http://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://localhost:80@evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("null", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_an_origin_is_local_or_configured(app, monkeypatch, origin, allowed, host):
    """Whatever the Host: after DNS rebinding it is the attacker's, as is the Origin."""
    monkeypatch.setitem(app.config, "LATCHKEY_PUBLIC_URL", "https://keys.example.org")
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    answer = app.test_client().post(
        "/mcp", json=ping, headers={"Origin": origin}, base_url=f"http://{host}"
    )
    assert answer.status_code == (200 if allowed else 403)
    assert ("error" in answer.json) != allowed


# --- what it costs ------------------------------------------------------------------


def search_for(query):
    arguments = {"name": "search_docs", "arguments": {"query": query}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": arguments}


COSTLY = {
    "many words": search_for("ab " * 5_400),
    "words that are nowhere": search_for("ee{ st! re! in! on! te! an! er! ti! es!"),
    "two long words": search_for(f"{'e' * 8_000} {'t' * 8_000}"),
    "a long path": {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "get_endpoint",
            "arguments": {"method": "DELETE", "path": f"/me/api-keys/{'a' * 16_000}"},
        },
    },
    "deep": b"[" * 16_384,
    "many arrays": b"[" + b"[]," * 5_460 + b"1]",
    "many deep arrays": b"[" + (b"[" * 900 + b"]" * 900 + b",") * 9 + b"1]",
    "many numbers": b"[" + b"1," * 8_190 + b"1]",
    "a long number": b'{"jsonrpc":"2.0","method":"ping","id":' + b"9" * 4_300 + b"}",
}


def cpu(call, times=30):
    """Seconds of CPU that a call takes, in the mean."""
    call()
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


@pytest.mark.parametrize("body", COSTLY.values(), ids=COSTLY.keys())
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_body_costs_much_more_than_a_verification(post, alice, verify, body):
    """Nobody has to sign in for it; without any bound it was 350 verifications."""
    token = alice.key()["token"]
    assert verify(token).status_code == 200
    assert cpu(lambda: post(body)) < 20 * cpu(lambda: verify(token))
