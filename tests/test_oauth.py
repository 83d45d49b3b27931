"""/oauth: introspection (RFC 7662), revocation by token (RFC 7009), metadata."""

import asyncio
import time
from base64 import b64encode
from io import BytesIO
from types import SimpleNamespace
from urllib.parse import quote_plus

import pytest
from authlib.integrations.flask_oauth2 import ResourceProtector
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from flask import Flask
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

import tokens
from extras import oauth


@pytest.fixture
def service(bob):
    """The key of a service that asks about other people's: its credentials for that."""
    return bob.key(name="gateway")


def introspect(app, service, **form):
    who = (service["key_public"], service["token"])
    return app.test_client().post("/oauth/introspect", data=form, auth=who)


def revoke(app, **form):
    return app.test_client().post("/oauth/revoke", data=form)


@pytest.mark.parametrize("mode, scope", [("read", "read"), ("write", "read write")])
def test_introspection_tells_whose_key_it_is(app, alice, service, mode, scope):
    key = alice.key(mode=mode)
    answer = introspect(app, service, token=key["token"], token_type_hint="whatever")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    told = answer.json
    assert told.pop("exp") - told.pop("iat") == 90 * 86400
    assert told == {
        "active": True,
        "scope": scope,
        "client_id": key["key_public"],
        "token_type": "Bearer",
        "sub": key["user_id"],
        "username": "alice",
        "jti": key["id"],
    }


def test_the_client_may_also_authenticate_in_the_form(app, alice, service):
    form = {"client_id": service["key_public"], "client_secret": service["token"]}
    key = alice.key()
    answer = app.test_client().post(
        "/oauth/introspect", data={"token": key["token"], **form}
    )
    assert answer.json["jti"] == key["id"]


def test_whatever_is_no_good_key_is_inactive_and_nothing_more(app, alice, service):
    key = alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    for token in (
        key["token"],
        alice.token,
        "lk_x",
        "\0",
        "\u212a",
        tokens.new_token("lk").text,
    ):
        answer = introspect(app, service, token=token)
        assert (answer.status_code, answer.json) == (200, {"active": False})


def test_revoking_the_service_locks_it_out_at_once(app, alice, bob, service):
    token = alice.key()["token"]
    assert introspect(app, service, token=token).json["active"]
    bob.call("DELETE", f"/api/me/api-keys/{service['id']}")
    answer = introspect(app, service, token=token)
    assert (answer.status_code, answer.json) == (401, {"error": "invalid_client"})
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "headers, form",
    [
        ({}, {}),
        ({"Authorization": "Basic"}, {}),
        ({"Authorization": "Basic !!!"}, {}),
        ({"Authorization": "Bearer {token}"}, {}),
        ({}, {"client_id": "{key_public}"}),
        ({}, {"client_id": "somebodyelse", "client_secret": "{token}"}),
        ({}, {"client_secret": "{token}"}),
        ({}, {"client_id": "{key_public}", "client_secret": "{key_public}"}),
    ],
)
def test_a_caller_that_is_no_client_learns_nothing(app, alice, service, headers, form):
    headers = {name: value.format(**service) for name, value in headers.items()}
    form = {name: value.format(**service) for name, value in form.items()}
    form["token"] = alice.key()["token"]
    answer = app.test_client().post("/oauth/introspect", data=form, headers=headers)
    assert (answer.status_code, answer.json) == (401, {"error": "invalid_client"})


def test_bad_requests_get_the_error_of_the_rfc(app, alice, service):
    who = (service["key_public"], service["token"])
    http, token = app.test_client(), alice.key()["token"]
    twice = {"token": [token, token]}
    both = {"token": token, "client_secret": service["token"]}
    as_json = {"json": {"token": token}, "auth": who}
    for path, request in [
        ("introspect", {"auth": who}),
        ("introspect", {"data": {"token": ""}, "auth": who}),
        ("introspect", {"data": twice, "auth": who}),
        ("introspect", {"data": both, "auth": who}),
        ("introspect", as_json),
        ("revoke", {}),
        ("revoke", {"data": {"token": ""}}),
        ("revoke", {"data": {"token": " \r\n"}}),
        ("revoke", {"data": twice}),
        ("revoke", as_json),
    ]:
        answer = http.post(f"/oauth/{path}", **request)
        assert (answer.status_code, answer.json["error"]) == (400, "invalid_request")
    assert introspect(app, service, token=token).json["active"]
    assert http.get("/oauth/introspect").status_code == 405


def test_whoever_holds_a_key_kills_it_at_once(app, alice, verify, sql):
    key, other = alice.key(), alice.key()
    for _ in range(2):
        answer = revoke(app, token=key["token"], token_type_hint="refresh_token")
        assert (answer.status_code, answer.data) == (200, b"")
    assert [verify(k["token"]).status_code for k in (key, other)] == [401, 200]
    query = "SELECT api_key_id, reason, ip FROM audit_events WHERE event = 'revoked'"
    assert sql(query) == [(key["id"], "revoked_by_token", "127.0.0.1")]


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\t{}"])
def test_white_space_around_a_token_keeps_no_key_alive(app, alice, verify, around):
    """It came with the token out of a file; 200 says that the key is revoked."""
    token = alice.key()["token"]
    answer = revoke(app, token=around.format(token))
    assert answer.status_code == 200
    assert verify(token).status_code == 401


def test_whoever_holds_a_session_ends_it_at_once(app, alice, sql):
    assert [revoke(app, token=alice.token).status_code for _ in range(2)] == [200, 200]
    assert alice.call("GET", "/api/me").status_code == 401
    columns = "user_id IS NULL, api_key_id, reason"
    query = f"SELECT {columns} FROM audit_events WHERE event = 'revoked'"
    [(nobody, key, reason)] = sql(query)
    assert (bool(nobody), key, reason) == (False, None, "revoked_by_token")


def test_a_forged_or_unknown_token_kills_nothing(app, alice, verify):
    good = alice.key()["token"]
    body = good[:16] + tokens.new_token("lk").text[16:-6]
    for token in (
        body + tokens.checksum(body),
        good[:-1],
        good.lower(),
        "\0",
        "lk_" * 99,
    ):
        assert revoke(app, token=token).status_code == 200
    assert verify(good).status_code == 200


def test_the_metadata_names_the_endpoints(app):
    told = app.test_client().get("/.well-known/oauth-authorization-server").json
    assert told["issuer"] == "http://localhost"
    assert told["introspection_endpoint"] == "http://localhost/oauth/introspect"
    assert told["revocation_endpoint"] == "http://localhost/oauth/revoke"


def test_authlib_introspects_and_revokes(serve, alice, service):
    url, token = serve().url, alice.key()["token"]
    with OAuth2Client(service["key_public"], service["token"]) as client:
        ask = client.introspect_token(f"{url}/oauth/introspect", token=token)
        assert ask.json()["active"] is True
        assert (
            client.revoke_token(f"{url}/oauth/revoke", token=token).status_code == 200
        )
        ask = client.introspect_token(f"{url}/oauth/introspect", token=token)
        assert ask.json() == {"active": False}


def test_authlib_protects_a_resource_with_it(serve, alice, service):
    url = serve().url

    class Validator(IntrospectTokenValidator):
        def introspect_token(self, token_string):
            with OAuth2Client(service["key_public"], service["token"]) as client:
                return client.introspect_token(
                    f"{url}/oauth/introspect", token=token_string
                ).json()

    protect, resource = ResourceProtector(), Flask("resource")
    protect.register_token_validator(Validator())

    @resource.get("/")
    @protect("write")
    def view():
        return protect.acquire_token("write")["username"]

    def ask(key):
        headers = {"Authorization": f"Bearer {key['token']}"}
        return resource.test_client().get("/", headers=headers)

    reader, writer = alice.key(), alice.key(mode="write")
    assert (ask(writer).data, ask(reader).status_code) == (b"alice", 403)
    alice.call("DELETE", f"/api/me/api-keys/{writer['id']}")
    assert ask(writer).status_code == 401


def basic(credentials, scheme="Basic"):
    """The header of HTTP Basic for credentials as the client wrote them."""
    encoded = b64encode(credentials.encode("latin-1")).decode()
    return {"Authorization": f"{scheme} {encoded}"}


def ask_as(app, credentials, token, scheme="Basic"):
    http, headers = app.test_client(), basic(credentials, scheme)
    return http.post("/oauth/introspect", data={"token": token}, headers=headers)


def every_character(text):
    return "".join(f"%{ord(character):02x}" for character in text)


@pytest.mark.parametrize(
    "write_name, write_secret",
    [
        (str, str),
        (str, lambda secret: secret.replace("_", "%5F")),
        (str, lambda secret: secret.replace("_", "%5f")),
        (str, every_character),
        (every_character, str),
        (every_character, every_character),
    ],
    ids=["plain", "%5F", "%5f", "secret", "name", "both"],
)
def test_http_basic_is_read_plain_and_form_urlencoded(
    app, alice, service, write_name, write_secret
):
    """RFC 6749, 2.3.1: the client encodes both halves; many send them as they are."""
    name, secret = write_name(service["key_public"]), write_secret(service["token"])
    for scheme in ("Basic", "basic"):
        answer = ask_as(app, f"{name}:{secret}", alice.key()["token"], scheme)
        assert (answer.status_code, answer.json["active"]) == (200, True)


@pytest.mark.parametrize(
    "credentials",
    [
        "{token}",
        "{key_public}",
        "{token}:{key_public}",
        "{key_public}%3A{token}",
        "{key_public}:{token}+",
        "{key_public}:+{token}",
        "{key_public}+:{token}",
        "{key_public}:{token}%20",
        "{key_public}:{token}%2B",
        "{key_public}:{token}%",
        "{key_public}%:{token}",
        "{key_public}:{token}%5",
        "{key_public}:%zz{token}",
        "{key_public}:{token}%00",
        "{key_public}:{token}%FF",
        "{key_public}:{token}%ED%A0%80",
        "{key_public}:{token}\xff",
        "{key_public}:{twice}",
    ],
)
def test_nothing_else_in_http_basic_is_a_client(app, alice, service, credentials):
    twice = service["token"].replace("_", "%255F")
    credentials = credentials.format(**service, twice=twice)
    answer = ask_as(app, credentials, alice.key()["token"])
    assert (answer.status_code, answer.json) == (401, {"error": "invalid_client"})
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="latchkey"'


@pytest.mark.parametrize(
    "sent, meant",
    [
        ("lk%5Fa%2Bb", "lk_a+b"),
        ("a+b%20c", "a b c"),
        ("a%25b", "a%b"),
        ("%2525", "%25"),
        ("100%", "100%"),
        ("a%zb", "a%zb"),
        ("a%3Ab", "a:b"),
        ("%C3%A9", "é"),
    ],
)
def test_a_plus_and_a_percent_sign_are_decoded_once(app, monkeypatch, sent, meant):
    """In both halves. No key of ours has them, so the look-up is a stand-in."""
    key = SimpleNamespace(key_public=meant)
    monkeypatch.setattr(oauth, "good_key", {meant: key}.get)
    headers = basic(f"{sent}:{sent}")
    with app.test_request_context(method="POST", headers=headers):
        assert oauth.client_is_known()


def test_the_metadata_has_no_empty_array_and_no_endpoint_that_is_not_there(app):
    """RFC 8414, 3.2. What strict clients ask for beyond it: test_oauth_clients.py."""
    http = app.test_client()
    told = http.get("/.well-known/oauth-authorization-server").json
    assert all(told.values())
    for name, url in told.items():
        if name.endswith("_endpoint"):
            answer = http.post(url, data={"token": "x"})
            assert answer.status_code in (200, 401)


# --- what comes around a token --------------------------------------------------------

AROUND = {
    "a line feed": "{}\n",
    "CRLF": "{}\r\n",
    "CR": "{}\r",
    "several lines": "\n\n{}\n\n\n",
    "spaces": "   {}   ",
    "tabs": "\t{}\t",
    "vertical tab and form feed": "\v{}\f",
    "a no-break space": "\u00a0{}\u00a0",
    "a wide space": "\u3000{}",
    "a line separator": "{}\u2028",
    "next line": "{}\x85",
    "a byte order mark": "\ufeff{}",
    "a byte order mark and CRLF": "\ufeff{}\r\n",
    "quotes": '"{}"',
    "quotes and a line feed": '"{}"\n',
    "single quotes": "'{}'",
    "spaces in quotes": '" {} "',
}
around = pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)


@around
def test_no_200_stands_over_a_living_key(app, alice, verify, sql, around):
    """The file it was in, or the shell it was typed into, left something around it."""
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        token = alice.key()["token"]
        form = {"token": around.format(token)}
        http = app.test_client()
        answer = http.post("/oauth/revoke", data=form, content_type=kind)
        assert (answer.status_code, answer.data) == (200, b"")
        assert verify(token).status_code == 401
    query = "SELECT reason FROM audit_events WHERE event = 'revoked'"
    assert sql(query) == [("revoked_by_token",)] * 2


@around
def test_no_200_stands_over_a_living_session(app, alice, around):
    assert revoke(app, token=around.format(alice.token)).status_code == 200
    assert alice.call("GET", "/api/me").status_code == 401


@pytest.mark.parametrize(
    "body",
    ["token={}\n", "token={}\r\n", "token={}%0A", "token=+{}+", "token=%20{}%0D%0A"]
    + ["token_type_hint=access_token&token={}\n", "token={}&more=\n", "&&token={}&"],
    ids=ascii,
)
def test_as_curl_sends_a_file_it_is_revoked_too(app, alice, verify, body):
    """``--data-binary`` leaves the line feed, ``--data-urlencode`` encodes it."""
    token, kind = alice.key()["token"], "application/x-www-form-urlencoded"
    body = body.format(token)
    for content_type in (kind, f"{kind}; charset=utf-8"):
        http = app.test_client()
        answer = http.post("/oauth/revoke", data=body, content_type=content_type)
        assert answer.status_code == 200
        assert verify(token).status_code == 401


NOTHING = {
    "empty": {"token": [""]},
    "missing": {},
    "another field": {"tokens": ["{token}"], "access_token": ["{token}"]},
    "in another case": {"Token": ["{token}"]},
    "a hint alone": {"token_type_hint": ["access_token"]},
    "a space": {"token": [" "]},
    "a line feed": {"token": ["\n"]},
    "CRLF": {"token": ["\r\n"]},
    "white space": {"token": [" \t\v\f\r\n\u00a0\u2003\u3000"]},
    "a byte order mark": {"token": ["\ufeff"]},
    "empty quotes": {"token": ['""']},
    "twice": {"token": ["{token}", "{token}"]},
    "one of two is empty": {"token": ["", "{token}"]},
    "the other is empty": {"token": ["{token}", ""]},
}


@pytest.mark.parametrize(
    "unit", [" ", "\n", "\t ", '"', "'\"", "\ufeff", "\u3000", "x "]
)
@pytest.mark.parametrize("around", ["x{}x", "{}x", "x{}", "{}"])
def test_what_is_around_a_token_costs_no_time(app, around, unit):
    """Anybody may send it: 16 KB, over which an expression could go again and again."""
    form = {"token": around.format(unit * (16_000 // len(quote_plus(unit))))}
    began = time.process_time()
    assert revoke(app, **form).status_code in (200, 400)
    assert time.process_time() - began < 0.2


def is_invalid(answer):
    told = answer.status_code, answer.json["error"], answer.mimetype
    return told == (400, "invalid_request", "application/json")


@pytest.mark.parametrize("form", NOTHING.values(), ids=NOTHING)
def test_without_one_token_it_is_an_invalid_request(app, alice, service, verify, form):
    """RFC 6749, 3.2; and RFC 7009 has no other word for it."""
    token, who = alice.key()["token"], (service["key_public"], service["token"])
    form = {
        name: [value.replace("{token}", token) for value in values]
        for name, values in form.items()
    }
    for path, auth in (("revoke", None), ("revoke", who), ("introspect", who)):
        answer = app.test_client().post(f"/oauth/{path}", data=form, auth=auth)
        assert is_invalid(answer)
    assert verify(token).status_code == 200


@pytest.mark.parametrize("kind", ["json", "plain text", "query", "a file", "nothing"])
def test_a_token_anywhere_else_is_an_invalid_request(app, alice, service, verify, kind):
    token, who = alice.key()["token"], (service["key_public"], service["token"])
    file = (BytesIO(token.encode()), "leaked.txt")
    sent = {
        "json": {"json": {"token": token}},
        "plain text": {"data": f"token={token}", "content_type": "text/plain"},
        "query": {"query_string": {"token": token}},
        "a file": {"data": {"token": file}},
        "nothing": {},
    }[kind]
    if kind != "a file":
        answer = app.test_client().post("/oauth/introspect", auth=who, **sent)
        assert is_invalid(answer)
    assert is_invalid(app.test_client().post("/oauth/revoke", **sent))
    assert verify(token).status_code == 200


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\t{}", "\u00a0{}\v"])
def test_introspection_too_strips_white_space(app, alice, service, around):
    answer = introspect(app, service, token=around.format(alice.key()["token"]))
    assert (answer.status_code, answer.json["active"]) == (200, True)


UNKNOWN = {
    "of nobody": lambda token: tokens.new_token("lk").text,
    "of no session": lambda token: tokens.new_token("lks").text,
    "of another prefix": lambda token: tokens.new_token("ghp").text,
    "no token at all": lambda token: "nonsense",
    "cut short": lambda token: token[:-1],
    "too long": lambda token: token + "0",
    "another letter": lambda token: token[:20] + "-" + token[21:],
    "two": lambda token: f"{token} {token}",
    "the public part": lambda token: token[3:15],
    "a JWT": lambda token: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
    "of 10 KB": lambda token: token * 150,
    "not ASCII": lambda token: f"\u2603{token}",
}


@pytest.mark.parametrize("change", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_token_is_200_and_kills_nothing(app, alice, verify, sql, change):
    """RFC 7009, 2.2: the client can do nothing about it."""
    token = alice.key()["token"]
    for hint in ("access_token", "refresh_token", "nonsense", ""):
        answer = revoke(app, token=change(token), token_type_hint=hint)
        assert (answer.status_code, answer.data) == (200, b"")
    assert verify(token).status_code == 200
    assert alice.call("GET", "/api/me").status_code == 200
    assert sql("SELECT count(*) FROM audit_events WHERE event = 'revoked'") == [(0,)]


@pytest.mark.live
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_client_of_the_mcp_sdk_that_is_ready_for_oauth_asks_mcp_alone(serve):
    """Its provider would discover, register and authorize, if it were ever told 401."""
    asked = []

    async def refuse(*arguments):
        raise AssertionError("it was driven into OAuth")

    async def use(url):
        async def note(request):
            asked.append(request.url.path)

        provider = OAuthClientProvider(
            url,
            OAuthClientMetadata(redirect_uris=["http://127.0.0.1:1/callback"]),
            NoTokens(),
            refuse,
            refuse,
        )
        async with create_mcp_http_client(auth=provider) as http:
            http.event_hooks = {"request": [note]}
            async with Client(streamable_http_client(url, http_client=http)) as client:
                return [tool.name for tool in (await client.list_tools()).tools]

    assert "search_docs" in asyncio.run(use(f"{serve().url}/mcp"))
    assert set(asked) == {"/mcp"}


class NoTokens:
    """The storage of a client that has never signed in."""

    async def get_tokens(self):
        return None

    async def get_client_info(self):
        return None
