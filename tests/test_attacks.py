"""What an attacker tries; docs/ATTACKS.md names the test that holds each attempt."""

import base64
import re
from urllib.parse import quote

import httpx
import pytest
from conftest import log_in
from servers import PASSWORD, ROOT

import tokens

KEYS = "/api/me/api-keys"


def test_the_id_of_somebody_elses_key_opens_nothing_anywhere(app, alice, bob, verify):
    his = bob.key()
    assert alice.call("DELETE", f"{KEYS}/{his['id']}").status_code == 404
    assert alice.call("GET", f"{KEYS}/audit?api_key_id={his['id']}").json["data"]["audit"] == []
    assert alice.call("GET", KEYS).json["data"]["api_keys"] == []
    assert alice.call("DELETE", KEYS).json["data"] == {"revoked": 0}
    assert verify(his["token"]).status_code == 200
    named = {rule.rule for rule in app.url_map.iter_rules() if "id" in rule.arguments}
    assert named == {f"{KEYS}/<anything:id>"}  # a new route with an id belongs in this test


def test_a_session_is_no_key_and_a_key_no_session(app, alice, verify):
    key = alice.key()
    assert verify(alice.token).status_code == 401
    me = app.test_client().get("/api/me", headers={"Authorization": f"Bearer {key['token']}"})
    assert me.status_code == 403
    as_client = {"client_id": key["key_public"], "client_secret": alice.token, "token": alice.token}
    assert alice.http.post("/oauth/introspect", data=as_client).status_code == 401
    as_token = as_client | {"client_secret": key["token"]}
    assert alice.http.post("/oauth/introspect", data=as_token).json == {"active": False}


def with_checksum(body):
    return body + tokens.checksum(body)


MODIFIED = {
    "upper case": str.upper,
    "lower case": str.lower,
    "cases swapped": str.swapcase,
    "the last character": lambda t: t[:-1] + ("a" if t[-1] != "a" else "b"),
    "one in the secret": lambda t: t[:20] + ("a" if t[20] != "a" else "b") + t[21:],
    "one in the secret, the checksum right": lambda t: with_checksum(
        t[:20] + ("a" if t[20] != "a" else "b") + t[21:-6]
    ),
    "another public part, the checksum right": lambda t: with_checksum(f"lk_{0:012}{t[15:-6]}"),
    "a session's prefix": lambda t: "lks" + t[2:],
    "a session's prefix, the checksum right": lambda t: with_checksum("lks" + t[2:-6]),
    "no prefix": lambda t: t[3:],
    "twice": lambda t: t + t,
    "cut": lambda t: t[:-1],
    "longer": lambda t: t + "0",
    "a Cyrillic letter": lambda t: t.replace("k", "\u043a", 1),
    "full width": lambda t: t[:3] + chr(ord(t[3]) + 0xFEE0) + t[4:],
    "a combining mark": lambda t: t + "\u0301",
    "zero width": lambda t: t[:5] + "\u200b" + t[5:],
    "percent-encoded": lambda t: t.replace("_", "%5f"),
    "in base64": lambda t: base64.b64encode(t.encode()).decode(),
    "a wildcard": lambda t: t[:-1] + "%",
}


@pytest.mark.parametrize("modify", MODIFIED.values(), ids=MODIFIED)
def test_a_modified_token_opens_nothing(alice, verify, modify):
    key = alice.key()
    changed = modify(key["token"]).encode().decode("latin-1")  # as its bytes arrive
    assert verify(changed).status_code == 401
    assert verify(key["token"]).status_code == 200
    alice.http.post("/oauth/revoke", data={"token": modify(key["token"])})
    assert verify(key["token"]).status_code == 200


INJECTIONS = (
    "' OR '1'='1",
    "alice' --",
    "'; DROP TABLE users; --",
    "x' UNION SELECT password_hash FROM users --",
    '" OR ""="',
    "{{7*7}}",
    "{% raw %}${7*7}<%= 7*7 %>#{7*7}",
    "%(id)s %s %n :id ?",
    "__proto__",
    "../../etc/passwd",
    "<img src=x onerror=alert(1)>",
    "x\r\nX-Evil: 1\r\n\r\n<p>",
    "\u202etxt.exe",
)


@pytest.mark.parametrize("text", INJECTIONS, ids=repr)
def test_what_is_sent_is_text_wherever_it_is_sent(app, alice, verify, sql, text):
    key = alice.key(name=text)
    assert key["name"] == text and verify(key["token"]).status_code == 200
    query = quote(text)
    answers = [
        log_in(alice.http, text),
        log_in(alice.http, "alice", text),
        alice.create(mode=text),
        alice.create(**{text: text}),
        alice.call("DELETE", f"{KEYS}/{query}"),
        alice.call("GET", f"{KEYS}/audit?event={query}"),
        alice.call("GET", f"{KEYS}?page={query}"),
        alice.http.post("/oauth/introspect", data={"client_id": text, "client_secret": text}),
        alice.http.get(f"/docs/{query}"),
        verify(text.replace("\r", "").replace("\n", "").encode().decode("latin-1")),
        verify(key["token"], path=f"/verify?scope={query}"),
    ]
    codes = [401, 401, 400, 400, 404, 400, 400, 401, 404, 401, 403]
    assert [answer.status_code for answer in answers] == codes
    revoked = alice.http.post("/oauth/revoke", data={"token": text, "token_type_hint": text})
    assert (revoked.status_code, revoked.data) == (200, b"")
    for answer in (*answers, revoked):
        assert "49" not in answer.text.replace(text, "") and "X-Evil" not in answer.headers
    assert alice.call("GET", f"{KEYS}/audit?api_key_id={query}").json["data"]["audit"] == []
    assert [k["name"] for k in alice.call("GET", KEYS).json["data"]["api_keys"]] == [text]
    assert sql("SELECT count(*) FROM users") == [(3,)]


def test_long_input_costs_no_more_than_its_length():
    """Were one of these exponential, or quadratic, this test would not end."""
    for text in ("a_" * 500_000, "a" * 1_000_000, "lk_" + "0" * 1_000_000, "_" * 1_000_000):
        assert tokens.parse(text, "lk") is None
        assert tokens.redact(text) == text


def test_names_that_collide_are_refused_like_any(alice):
    """Sixteen KiB of unknown fields: Python seeds its hashes anew in each process."""
    body = {f"{n:x}": 1 for n in range(1200)}
    answer = alice.call("POST", KEYS, json=body)
    assert answer.status_code == 400
    assert {"unknown_field"} < {error["message"] for error in answer.json["data"]["errors"]}


def everything_written(server, sql, database_url):
    """The log, each row of each table, and on SQLite the very bytes of the files."""
    found = server.log.read_bytes()
    for table in ("users", "sessions", "api_keys", "audit_events"):
        found += repr([tuple(row) for row in sql(f"SELECT * FROM {table}")]).encode()
    if database_url.startswith("sqlite"):
        path = database_url.removeprefix("sqlite:///")
        for end in ("", "-wal", "-shm", "-turn"):
            with open(path + end, "rb") as file:
                found += file.read()
    return found


def test_nothing_that_was_written_holds_a_token_or_a_password(serve, sql, database_url):
    server = serve()
    with httpx.Client(base_url=server.url) as http:
        secret = "hunter2-as-a-name"
        for who in ({"username": secret, "password": "x"}, {"username": "bob", "password": secret}):
            assert http.post("/api/auth/login", json=who).status_code == 401
        who = {"username": "alice", "password": PASSWORD}
        session = http.post("/api/auth/login", json=who).json()["data"]["token"]
        mine = {"Authorization": f"Bearer {session}"}
        wanted = {"name": "script", "mode": "read", "password": PASSWORD}
        made = http.post(KEYS, json=wanted, headers=mine).json()["data"]
        token = made["token"]
        for place in (
            "/verify/{}",
            "/api/me/api-keys/{}",
            "/api/me/api-keys/audit?event={}",
            "/{}",
        ):
            where = place.format(token)
            http.delete(where, headers=mine)
            http.get(where, headers={"Authorization": f"Bearer {token}"})
        http.post(KEYS, json={**wanted, "password": token}, headers=mine)
        http.post(KEYS, json={**wanted, token: token, "mode": token}, headers=mine)
        http.post("/oauth/introspect", data={"token": token}, auth=(made["key_public"], token))
        http.post("/oauth/revoke", data={"token": token})
        http.get("/verify", headers={"Authorization": f"Bearer {token}"})  # refused: it is audited
    written = everything_written(server, sql, database_url)
    assert made["key_public"].encode() in written  # it did look
    for hidden in (token, token[16:-6], session, session[17:-6], PASSWORD, secret):
        assert hidden.encode() not in written


def test_the_table_of_attacks_names_tests_that_exist():
    told = re.findall(r"`(test_\w+\.py)(?:: (test_\w+))?`", (ROOT / "docs/ATTACKS.md").read_text())
    assert len(told) > 15
    for file, name in told:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), (file, name)
