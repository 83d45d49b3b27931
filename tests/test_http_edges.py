"""What clients really send: headers twice, half a body, strange addresses."""

import json
import socket
from contextlib import suppress
from http.client import HTTPResponse

import pytest
from servers import Server


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
