"""What clients really send: headers twice, half a body, strange addresses."""

import gzip
import json
import socket
import zlib
from contextlib import suppress
from datetime import datetime, timedelta
from http.client import HTTPResponse
from urllib.parse import quote

import pytest
from servers import PASSWORD, Server


@pytest.fixture(scope="module")
def server(migrated_app, database_url, tmp_path_factory):
    server = Server(database_url, tmp_path_factory.mktemp("gunicorn") / "log")
    yield server
    server.stop()


@pytest.fixture
def send(server):
    """Send these bytes; status and body of the answer, which has two seconds."""

    def ask(method, target, *headers, body=b""):
        start = [f"{method} {target} HTTP/1.1", "Host: latchkey", "Connection: close"]
        with socket.create_connection(
            ("127.0.0.1", server.port), timeout=2
        ) as connection:
            # The answer may come before all of the body is sent.
            with suppress(ConnectionError):
                connection.sendall(
                    "\r\n".join([*start, *headers, "", ""]).encode() + body
                )
            with HTTPResponse(connection, method=method) as answer:
                answer.begin()
                return answer.status, answer.read()

    return ask


@pytest.fixture
def token(alice):
    return alice.key()["token"]


GOOD, BAD = "Authorization: Bearer {}", "Authorization: Bearer nonsense"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([GOOD, BAD], id="good and bad"),
        pytest.param([BAD, GOOD], id="bad and good"),
        pytest.param([GOOD, GOOD], id="good twice"),
        pytest.param([GOOD, "Authorization:"], id="good and empty"),
        pytest.param(["Authorization:", GOOD], id="empty and good"),
        pytest.param([GOOD, "authorization: Basic YTpi"], id="good and another scheme"),
        pytest.param(["Authorization: Bearer " + "x" * 8192], id="8 KB"),
        pytest.param(["Authorization:"], id="empty"),
        pytest.param(["Authorization: Bearer"], id="no token"),
        pytest.param(["Authorization: {}"], id="no scheme"),
        pytest.param(["Authorization: Basic {}"], id="wrong scheme"),
        pytest.param(["Authorization: Bearer\t{}"], id="tab"),
        pytest.param(["Authorization: Bearer {} {}"], id="two tokens"),
        pytest.param(["Authorization: Bearer {}\u00e9"], id="not ASCII"),
        pytest.param(["Proxy-Authorization: Bearer {}"], id="another header"),
        pytest.param(["Cookie: access_token={}"], id="cookie"),
        pytest.param([], id="no header"),
    ],
)
def test_these_credentials_are_refused(send, token, headers):
    query = f"?access_token={token}&token={token}"
    sent = [header.replace("{}", token) for header in headers]
    assert send("GET", f"/verify{query}", *sent) == (401, b"")


@pytest.mark.parametrize("scheme", ["bEaReR ", "bearer ", "BEARER ", "Bearer    "])
def test_a_scheme_in_any_case_and_many_spaces_are_fine(send, token, scheme):
    assert send("GET", "/verify", f"Authorization: {scheme}{token}") == (200, b"")


JSON, LENGTH = "Content-Type: application/json", "Content-Length: {}"
FORM = "Content-Type: application/x-www-form-urlencoded"
CHUNKED, WAIT = "Transfer-Encoding: chunked", "Expect: 100-continue"


@pytest.mark.parametrize(
    "method, headers, body",
    [
        pytest.param("HEAD", [], b"", id="HEAD"),
        pytest.param("BREW", [], b"", id="unknown method"),
        pytest.param("POST", [JSON, LENGTH.format(0)], b"", id="empty JSON"),
        pytest.param(
            "POST", [JSON, LENGTH.format(1 << 20)], b"{" * (1 << 20), id="1 MB"
        ),
        pytest.param("POST", [JSON, CHUNKED], b"5\r\nhello\r\n0\r\n\r\n", id="chunked"),
        pytest.param("POST", [JSON, CHUNKED], b"5\r\nhe", id="half a chunk"),
        pytest.param("POST", [LENGTH.format(5)], b"", id="body never comes"),
        pytest.param(
            "POST", [LENGTH.format(5), WAIT], b"", id="expects 100, body never comes"
        ),
    ],
)
def test_verify_answers_without_the_body(send, token, method, headers, body):
    bearer = f"Authorization: Bearer {token}"
    assert send(method, "/verify", bearer, *headers, body=body) == (200, b"")
    assert send(method, "/verify", BAD, *headers, body=body) == (401, b"")


@pytest.mark.parametrize(
    "sent, shown",
    [
        ("%00", "\0"),
        ("..%2f", "../"),
        ("..", ".."),
        ("%ff", "\ufffd"),
        ("%0d%0aSet-Cookie:x", "\r\nSet-Cookie:x"),
        ("%", "%"),
        ("a/b", "a/b"),
        ("//", "//"),
        ("a" * 8000, "a" * 100),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_strange_ids_get_the_one_404(send, alice, sent, shown):
    alice.key()
    check_not_found(
        send("DELETE", f"/api/me/api-keys/{sent}", GOOD.format(alice.token)), shown
    )


def test_the_id_of_somebody_else_or_with_more_around_it_is_not_found(
    send, alice, bob, sql
):
    mine, his = alice.key()["id"], bob.key()["id"]
    for sent, shown in (
        (his, his),
        (mine + "/", mine + "/"),
        (mine + "%20", mine + " "),
    ):
        answer = send("DELETE", f"/api/me/api-keys/{sent}", GOOD.format(alice.token))
        check_not_found(answer, shown)
    assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(2,)]


def check_not_found(answer, shown):
    status, body = answer
    error = {"key": "id", "message": "not_found", "value": shown}
    data = {"type": "validation_error", "errors": [error]}
    assert (status, json.loads(body)) == (
        404,
        {"code": 404, "message": "api key not found", "data": data},
    )


def test_the_id_in_upper_case_revokes(send, alice):
    key = alice.key()
    path, bearer = f"/api/me/api-keys/{key['id'].upper()}", GOOD.format(key["token"])
    assert send("DELETE", path, GOOD.format(alice.token))[0] == 200
    assert send("GET", "/verify", bearer) == (401, b"")


def test_a_chunked_body_over_16_kib_gets_413_too(send, alice):
    login = b'{"username": "alice", "password": "wrong"}'.ljust(16 * 1024) + b"more"
    assert send("POST", "/api/auth/login", JSON, CHUNKED, body=chunk(login))[0] == 413


def chunk(body):
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


TOO_LARGE = {"code": 413, "message": "request entity too large", "data": {}}


def test_a_chunked_form_over_16_kib_tells_nothing_and_kills_nothing(
    send, alice, bob, verify
):
    token, service = alice.key()["token"], bob.key()
    who = f"client_id={service['key_public']}&client_secret={service['token']}"
    form = f"token={token}&{who}&more=".encode()
    for path, good in (("introspect", b'"active":true'), ("revoke", b"")):
        address = ("POST", f"/oauth/{path}", FORM, CHUNKED)
        status, told = send(*address, body=chunk(form.ljust(16 * 1024, b"x") + b"x"))
        assert (status, json.loads(told)) == (413, TOO_LARGE)
        assert verify(token).status_code == 200
        # Of a good size it does what it says.
        status, told = send(*address, body=chunk(form))
        assert status == 200 and good in told
    assert verify(token).status_code == 401


@pytest.mark.parametrize("size", [16 * 1024 + 1, 1 << 20])
@pytest.mark.parametrize("path", ["/api/auth/login", "/api/me/api-keys"])
def test_a_body_over_16_kib_gets_413(send, alice, path, size):
    bearer, length = GOOD.format(alice.token), LENGTH.format(size)
    status, body = send("POST", path, bearer, JSON, length, body=b" " * size)
    assert (status, json.loads(body)) == (413, TOO_LARGE)


@pytest.mark.parametrize("size", [16 * 1024 - 1, 16 * 1024])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_of_16_kib_is_taken_however_it_is_framed(send, app, size, chunked):
    who = json.dumps({"username": "alice", "password": PASSWORD}).encode().ljust(size)
    framed = CHUNKED if chunked else LENGTH.format(size)
    body = chunk(who) if chunked else who
    status, told = send("POST", "/api/auth/login", JSON, framed, body=body)
    assert (status, json.loads(told)["message"]) == (200, "login successful")


# --- Host -----------------------------------------------------------------------------


@pytest.fixture
def exactly(server):
    """Send these bytes, as they are; the status of the answer, within two seconds."""

    def ask(*lines, body=b""):
        sent = "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
        with socket.create_connection(("127.0.0.1", server.port), timeout=2) as wire:
            wire.sendall(sent)
            with HTTPResponse(wire) as answer:
                answer.begin()
                return answer.status

    return ask


@pytest.mark.parametrize(
    "start",
    [
        "GET /verify",
        "POST /verify/a",
        "OPTIONS /verify",
        "GET /healthz",
        "GET /",
        "GET /docs",
        "GET /api/me",
        "DELETE /api/me/api-keys",
        "DELETE /api/me/api-keys/x",
        "POST /api/auth/login",
        "POST /oauth/revoke",
        "GET /nowhere",
        "GET http://latchkey/verify",
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["X-Forwarded-Host: latchkey"],
        ["Forwarded: host=latchkey"],
        ["X-Host: latchkey"],
        [":authority: latchkey"],
    ],
    ids=" ".join,
)
def test_without_a_host_http_1_1_is_400(exactly, alice, sql, start, headers):
    """RFC 9112, 3.2: whoever stands in front may have taken it for another's."""
    key = alice.key()
    for token in (alice.token, key["token"]):
        bearer = f"Authorization: Bearer {token}"
        assert exactly(f"{start} HTTP/1.1", bearer, *headers) == 400
    assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(1,)]
    assert sql("SELECT count(*) FROM api_keys WHERE last_used_at IS NULL") == [(1,)]


@pytest.mark.parametrize(
    "version, headers, status",
    [
        pytest.param("HTTP/1.1", ["Host: latchkey"], 200, id="one"),
        pytest.param("HTTP/1.1", ["hOST:latchkey"], 200, id="in another case"),
        pytest.param("HTTP/1.1", ["Host:"], 200, id="empty"),
        pytest.param("HTTP/1.1", ["Host: "], 200, id="a space"),
        pytest.param("HTTP/1.0", [], 200, id="HTTP/1.0 without"),
        pytest.param("HTTP/1.0", ["Host: latchkey"], 200, id="HTTP/1.0"),
        pytest.param("HTTP/1.1", ["Host: a", "Host: a"], 400, id="twice"),
        pytest.param("HTTP/1.1", ["Host: a", "Host: b"], 400, id="two"),
        pytest.param("HTTP/1.1", ["Host: a", "Host:"], 400, id="one and an empty"),
        pytest.param("HTTP/1.1", ["Host : a"], 400, id="a space before the colon"),
        pytest.param("HTTP/1.1", ["X-Host: a"], 400, id="another header"),
    ],
)
def test_a_host_is_needed_once(exactly, token, version, headers, status):
    bearer = GOOD.format(token)
    assert exactly(f"GET /verify {version}", bearer, *headers) == status
    assert exactly(f"GET /healthz {version}", *headers) == status


# --- Content-Encoding -----------------------------------------------------------------

WRONG_TYPE = {"code": 415, "message": "unsupported media type", "data": {}}
ENCODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "br": bytes,
    "zstd": bytes,
    "compress": bytes,
    "aes128gcm": bytes,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
    "identity, gzip": gzip.compress,
    "nonsense": bytes,
    "utf-8": bytes,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_encoded_body_is_415(send, alice, sql, encoding, chunked):
    """It would be bytes to no one's liking, or a bomb."""
    encode, key = ENCODINGS[encoding], alice.key()
    bearer, coding = GOOD.format(alice.token), f"Content-Encoding: {encoding}"
    who = json.dumps({"username": "alice", "password": PASSWORD})
    wanted = json.dumps({"name": "script", "mode": "read", "password": PASSWORD})
    for path, kind, body in [
        ("/api/auth/login", JSON, who),
        ("/api/me/api-keys", JSON, wanted),
        ("/oauth/revoke", FORM, f"token={key['token']}"),
        ("/oauth/introspect", FORM, f"token={key['token']}"),
        ("/mcp", JSON, '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'),
    ]:
        sent = encode(body.encode())
        framed = CHUNKED if chunked else LENGTH.format(len(sent))
        sent = chunk(sent) if chunked else sent
        status, told = send("POST", path, bearer, kind, coding, framed, body=sent)
        assert status == 415, path
        assert path == "/mcp" or json.loads(told) == WRONG_TYPE
    assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(1,)]
    assert sql("SELECT count(*) FROM sessions") == [(1,)]
    rows = sql("SELECT event FROM audit_events")
    assert rows == [("created",)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_on_verify_and_without_a_body_an_encoding_never_matters(
    send, alice, token, encoding
):
    coding, bearer = f"Content-Encoding: {encoding}", GOOD.format(token)
    body = gzip.compress(b"x")
    sized = LENGTH.format(len(body))
    assert send("POST", "/verify", bearer, coding, sized, body=body) == (200, b"")
    assert send("GET", "/verify", bearer, coding) == (200, b"")
    session = GOOD.format(alice.token)
    for method, path in [
        ("GET", "/healthz"),
        ("GET", "/api/me"),
        ("GET", "/docs"),
        ("DELETE", "/api/me/api-keys"),
    ]:
        assert send(method, path, session, coding)[0] == 200


# --- null -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        "",
        '"expires_in_days": null, ',
        '"expires_in_days":null,',
        '"expires_in_days" : null , ',
        '"expires_in_days": 90, ',
        '"expires_in_days": 90.0, ',
        '"expires_in_days": 9e1, ',
        '"expires_in_days": 7, "expires_in_days": null, ',
    ],
)
def test_no_number_of_days_is_as_none_was_sent(send, alice, sent):
    body = f'{{{sent}"name": "a", "mode": "read", "password": "{PASSWORD}"}}'.encode()
    sized = LENGTH.format(len(body))
    address = ("POST", "/api/me/api-keys", GOOD.format(alice.token), JSON, sized)
    status, told = send(*address, body=body)
    key = json.loads(told)["data"]
    assert status == 201
    made, ends = (
        datetime.fromisoformat(key[at]) for at in ("created_at", "expires_at")
    )
    assert abs(ends - made - timedelta(days=90)) < timedelta(seconds=1)


@pytest.mark.parametrize("field", ["name", "mode", "password"])
def test_null_is_no_value_of_a_field_that_is_needed(alice, sql, field):
    without = {"name": "a", "mode": "read", "password": PASSWORD} | {field: None}
    answer = alice.call("POST", "/api/me/api-keys", json=without)
    [error] = answer.json["data"]["errors"]
    assert (error["key"], error["message"]) == (field, "required")
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]


@pytest.mark.parametrize("field", ["username", "password"])
def test_null_is_no_name_and_no_password(app, field):
    who = {"username": "alice", "password": PASSWORD} | {field: None}
    for path in ("/api/auth/login", "/api/session"):
        ours = {"Sec-Fetch-Site": "same-origin"}
        answer = app.test_client().post(path, json=who, headers=ours)
        [error] = answer.json["data"]["errors"]
        assert (error["key"], error["message"]) == (field, "required")


# --- ids ------------------------------------------------------------------------------

CASES = {
    "lower": str.lower,
    "upper": str.upper,
    "capitalized": str.capitalize,
    "title": str.title,
    "swapped": lambda text: text[:18].upper() + text[18:],
    "every other": lambda text: "".join(
        letter.upper() if n % 2 else letter for n, letter in enumerate(text)
    ),
}
# An id in which each letter that there may be is one.
ID = "abcdefab-cdef-4bcd-8eab-cdefabcdefab"


@pytest.fixture
def known_id(alice, sql):
    """A key of Alice's with this id, and its token."""
    key = alice.key()
    sql("UPDATE api_keys SET id = :id", id=ID)
    sql("UPDATE audit_events SET api_key_id = :id", id=ID)
    return key["token"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_id_is_the_same_in_any_case(app, alice, bob, known_id, verify, case):
    written = case(ID)
    path = "/api/me/api-keys"
    trail = alice.call("GET", f"{path}/audit?api_key_id={written}").json["data"]
    assert [entry["api_key_id"] for entry in trail["audit"]] == [ID]
    both = f"{path}/audit?event=created&api_key_id={written}"
    assert alice.call("GET", both).json["data"]["pagination"]["total_count"] == 1
    none = bob.call("GET", f"{path}/audit?api_key_id={written}").json["data"]
    assert none["audit"] == []
    assert bob.call("DELETE", f"{path}/{written}").status_code == 404
    assert verify(known_id).status_code == 200
    assert alice.call("DELETE", f"{path}/{written}").status_code == 200
    assert verify(known_id).status_code == 401
    again = app.test_cli_runner().invoke(args=["keys", "revoke", written])
    assert again.output == "was revoked already\n"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_operator_s_ids_too(app, known_id, verify, sql, case):
    told = app.test_cli_runner().invoke(args=["keys", "revoke", case(ID)])
    assert (told.exit_code, told.output) == (0, "revoked\n")
    assert verify(known_id).status_code == 401
    query = "SELECT api_key_id FROM audit_events WHERE event = 'revoked'"
    assert sql(query) == [(ID,)]


@pytest.mark.parametrize(
    "wrong",
    [ID[:-1], f"{ID}a", f" {ID}", f"{ID} ", ID.replace("-", ""), f"{{{ID}}}"]
    + [ID.replace("a", "\uff41"), ID.replace("b", "\u0432"), f"urn:uuid:{ID}", "", "%"],
    ids=ascii,
)
def test_nothing_else_is_the_same_id(app, alice, known_id, verify, wrong):
    path = "/api/me/api-keys"
    query = {"api_key_id": wrong}
    answer = alice.call("GET", f"{path}/audit", query_string=query)
    assert (answer.status_code, answer.json["data"]["audit"]) == (200, [])
    assert app.test_cli_runner().invoke(args=["keys", "revoke", wrong]).exit_code != 0
    if wrong:
        assert alice.call("DELETE", f"{path}/{quote(wrong)}").status_code == 404
    assert verify(known_id).status_code == 200
