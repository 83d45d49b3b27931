"""What attackers try, and what comes of it; docs/security.md is the table of it."""

import re
from urllib.parse import quote

import bcrypt
import pytest
from conftest import PASSWORD, log_in
from servers import disconnect

import tokens
from app import create_app


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def calls(app, filled="x"):
    """Path and method of every route there is."""
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods or {"GET", "POST", "PROPFIND"}):
            yield re.sub("<.+?>", filled, rule.rule), method


# --- somebody else's ------------------------------------------------------------------


def test_somebody_else_s_ids_open_nothing_on_any_route(app, alice, bob, verify, sql):
    his = bob.key(name="it is his")
    ids = {
        "id": his["id"],
        "user_id": his["user_id"],
        "api_key_id": his["id"],
        "username": "bob",
    }
    owned = f"SELECT * FROM {{}} WHERE user_id = '{his['user_id']}'"
    before = [
        sql(owned.format(table)) for table in ("api_keys", "sessions", "audit_events")
    ]
    wanted = {"name": "script", "mode": "read", "password": PASSWORD}
    for path, method in calls(app, his["id"]):
        if path != "/api/auth/logout":  # it would end Alice's session
            for sent in (
                {},
                {"query_string": ids},
                {"json": ids | wanted},
                {"data": ids},
            ):
                with alice.call(method, path, **sent) as answer:
                    assert answer.status_code < 500, (method, path)
                    assert (
                        "it is his" not in answer.text
                        and his["key_public"] not in answer.text
                    )
    after = [
        sql(owned.format(table)) for table in ("api_keys", "sessions", "audit_events")
    ]
    assert after == before and alice.call("GET", "/api/me").status_code == 200
    assert verify(his["token"]).status_code == 200


# --- tokens ---------------------------------------------------------------------------


def sealed(body):
    """With the checksum of this very text: only what was changed is wrong with it."""
    return body + tokens.checksum(body)


def test_no_token_passes_for_one_of_the_other_kind(app, alice, verify):
    key = alice.key(mode="write")["token"]
    as_session, as_key = sealed("lks" + key[2:-6]), sealed("lk" + alice.token[3:-6])
    guarded = [call for call in calls(app) if call[0].startswith("/api/")]
    for path, method in guarded:
        public = path in ("/api/auth/login", "/api/session")
        if not public and method not in ("HEAD", "OPTIONS"):
            codes = [
                app.test_client()
                .open(path, method=method, headers=bearer(token))
                .status_code
                for token in (key, as_session, as_key)
            ]
            assert codes in ([403, 401, 401], [405] * 3), (method, path)
    assert [
        verify(token).status_code for token in (alice.token, as_session, as_key)
    ] == [401] * 3
    assert verify(key).status_code == alice.call("GET", "/api/me").status_code == 200


OFFLINE = {  # what dies before the database is asked
    "Kelvin sign for k": lambda t: sealed(t[:-6].replace("k", "\u212a", 1)),
    "Roman numeral for l": lambda t: sealed("\u217c" + t[1:-6]),
    "Cyrillic letter": lambda t: sealed(t[:20] + "\u0430" + t[21:-6]),
    "full-width digit": lambda t: sealed(t[:20] + "\uff11" + t[21:-6]),
    "Arabic digit": lambda t: sealed(t[:20] + "\u0663" + t[21:-6]),
    "accent": lambda t: sealed(t[:20] + "\u0301" + t[20:-6]),
    "no width": lambda t: sealed(t[:20] + "\u200b" + t[20:-6]),
    "line feed in it": lambda t: sealed(t[:20] + "\n" + t[20:-6]),
    "NUL behind it": lambda t: t + "\0",
    "upper-case prefix": lambda t: sealed("LK" + t[2:-6]),
    "another prefix": lambda t: sealed("xx" + t[2:-6]),
    "session's prefix": lambda t: sealed("lks" + t[2:-6]),
    "no prefix": lambda t: sealed(t[3:-6]),
    "wrong checksum": lambda t: t[:-6] + ("000000" if t[-6:] != "000000" else "000001"),
    "checksum of another text": lambda t: t[:-6] + tokens.checksum(t),
    "one character less": lambda t: sealed(t[:20] + t[21:-6]),
    "one character more": lambda t: sealed(t[:20] + "a" + t[20:-6]),
    "another case": lambda t: t[:3] + t[3:].swapcase(),
}
ONLINE = {  # well formed, with a right checksum
    "another secret": lambda t: sealed(t[:16] + tokens.new_token("lk").text[16:-6]),
    "secret in another case": lambda t: sealed(t[:16] + t[16:-6].swapcase()),
    "another public part": lambda t: sealed(
        t[:3] + tokens.new_token("lk").text[3:15] + t[15:-6]
    ),
}


@pytest.mark.parametrize("change", (OFFLINE | ONLINE).values(), ids=OFFLINE | ONLINE)
def test_a_changed_token_opens_and_kills_nothing(app, alice, verify, sql, change):
    key = alice.key()
    good, http = key["token"], app.test_client()
    changed, who = change(good), (key["key_public"], good)
    if changed.isprintable():
        assert verify(changed.encode().decode("latin1")).status_code == 401
    assert http.post("/oauth/revoke", data={"token": changed}).status_code == 200
    assert http.post("/oauth/introspect", data={"token": changed}, auth=who).json == {
        "active": False
    }
    form = {"token": good, "client_id": key["key_public"], "client_secret": changed}
    assert http.post("/oauth/introspect", data=form).status_code == 401
    told = sql(
        "SELECT reason FROM audit_events WHERE event IN ('auth_failed', 'revoked')"
    )
    known = change in ONLINE.values() and changed[:16] == good[:16]
    assert told == ([("wrong_secret",)] if known else [])
    assert verify(good).status_code == 200


@pytest.fixture(params=["sqlite:////nowhere/x.db", "postgresql:///d?host=/nowhere"])
def cut_off(request):
    """A client of an app that cannot reach its database: who asks it gets an error."""
    app = create_app({"DATABASE_URL": request.param})
    yield app.test_client()
    disconnect(app)


@pytest.mark.parametrize("change", OFFLINE.values(), ids=OFFLINE)
def test_garbage_never_reaches_the_database(cut_off, change):
    key, session = (tokens.new_token(prefix).text for prefix in ("lk", "lks"))

    def ask(path, token):
        if path == "/oauth/revoke":
            return cut_off.post(path, data={"token": token}).status_code
        header = bearer(token.encode().decode("latin1"))
        return cut_off.get(path, headers=header).status_code

    for path, good, refused in (
        ("/verify", key, 401),
        ("/api/me", session, 401),
        ("/oauth/revoke", key, 200),
    ):
        assert ask(path, good) in (500, 503), path
        garbage = change(good)
        if path == "/oauth/revoke" and garbage.startswith("lks_"):
            continue  # it is a session's there
        in_a_form = path == "/oauth/revoke"
        if in_a_form or garbage.isprintable():  # a header holds nothing else
            assert ask(path, garbage) == refused, path


def test_a_name_that_nobody_has_costs_one_bcrypt_as_a_wrong_password_does(
    app, monkeypatch, sql
):
    seen, real = [], bcrypt.checkpw
    monkeypatch.setattr(
        bcrypt, "checkpw", lambda p, h: (seen.append(h[:7]), real(p, h))[1]
    )
    sql("UPDATE users SET suspended_at = '2020-01-01 00:00:00' WHERE username = 'bob'")
    for name, password in (("alice", "wrong"), ("nobody", "wrong"), ("bob", PASSWORD)):
        seen.clear()
        assert log_in(app.test_client(), name, password).status_code == 401
        assert seen == [b"$2b$04$"], name


@pytest.mark.parametrize("field", ["password", "username", "mode", "token", "{}"])
def test_no_refusal_echoes_a_secret(app, alice, field):
    secret = alice.key()["token"]
    hidden = secret.rpartition("_")[2]
    for value in (secret, secret * 3, [secret], {"a": secret}, f" {secret}\n"):
        body = {field.format(secret): value, "more": f"my key is {secret}"}
        for path in ("/api/auth/login", "/api/me/api-keys"):
            answer = alice.call("POST", path, json=body)
            assert answer.status_code == 400 and hidden not in answer.text
    assert "horse" not in alice.create(password=f"{PASSWORD} " * 9).text
    assert hidden not in alice.call("DELETE", f"/api/me/api-keys/{secret}").text


def test_no_answer_may_be_kept_or_read_by_another_origin(app):
    for path, method in calls(app):
        asked = {
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "DELETE",
        }
        with app.test_client().open(path, method=method, headers=asked) as answer:
            assert answer.headers["Cache-Control"] in ("no-store", "no-cache"), path
            assert not [
                name for name, _ in answer.headers if name.startswith("Access-Control")
            ]


# --- strings --------------------------------------------------------------------------

STRINGS = {
    "SQL": "' OR '1'='1' --",
    "SQL, a second statement": "x'); DROP TABLE audit_events; --",
    "SQL, union": "' UNION SELECT digest FROM sessions --",
    "SQL, a pattern": "%",
    "template": "{{7*191}} ${7*191} #{7*191} <%= 7*191 %> {% print 7*191 %}",
    "format": "%s%s%n {0.__class__} {password}",
    "HTML": "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>",
    "path": "../../../../etc/passwd",
    "shell": "; id | id `id` $(id)",
    "header": "x\r\nSet-Cookie: latchkey=evil\r\n\r\n<html>",
    "terminal": "\x1b[2J\x9b31m\u202e",
    "NUL": "a\0b",
}


@pytest.mark.parametrize("text", STRINGS.values(), ids=STRINGS)
def test_a_string_is_a_string_everywhere(app, alice, sql, text):
    http, key, made = app.test_client(), alice.key(), alice.create(name=text)
    keys, form, quoted = "/api/me/api-keys", {"token": text}, quote(text, safe="")
    tool = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    search = {"name": "search_docs", "arguments": {"query": text}}
    show = {"name": "get_endpoint", "arguments": {"method": text, "path": text}}
    who, mine = (key["key_public"], key["token"]), bearer(key["token"])
    answers = {  # by status
        400: [
            alice.create(mode=text),
            alice.create(expires_in_days=text),
            alice.create(**form),
            alice.call("GET", keys, query_string={"page": text}),
            alice.call("GET", keys, query_string={"page_size": text}),
            alice.call("GET", f"{keys}/audit", query_string={"event": text}),
        ],
        401: [http.post("/oauth/introspect", data={**form, "client_id": text})],
        404: [
            alice.call("DELETE", f"{keys}/{quoted}"),
            http.get(f"/docs/{quoted}"),
            http.get(f"/docs/{quoted}.md"),
        ],
        200: [
            http.post("/oauth/introspect", data=form, auth=who),
            http.post("/oauth/revoke", data=form, auth=who),
            http.post("/mcp", json=tool | {"params": search}),
            http.post("/mcp", json=tool | {"params": show}),
        ],
        403: [http.get("/verify", query_string={"scope": text}, headers=mine)],
    }
    for status, those in answers.items():
        assert [answer.status_code for answer in those] == [status] * len(those)
    stored = "\0" not in text
    assert made.status_code == (201 if stored else 400)
    assert not stored or made.json["data"]["name"] == text
    more = [log_in(http, text, "wrong"), log_in(http, "alice", text)]
    more += [
        alice.call("GET", f"{keys}/audit", query_string={"api_key_id": text}),
        made,
    ]
    assert {answer.status_code for answer in more} <= {200, 201, 400, 401}
    for answer in sum(answers.values(), more):
        assert "1337" not in answer.text and "root:" not in answer.text
        assert "Set-Cookie" not in answer.headers
        assert (
            "<script>alert" not in answer.text or answer.mimetype == "application/json"
        )
    told = sql("SELECT name FROM api_keys WHERE revoked_at IS NULL ORDER BY created_at")
    assert told == [("script",), (text,)][: 1 + stored]
    assert sql("SELECT username FROM users ORDER BY 1") == [
        ("alice",),
        ("bob",),
        ("charlie",),
    ]


@pytest.mark.parametrize(
    "name", ["bob\r\nX-User-Id: 1", "bob\n", "b\u00f6b", "bob ", "", "\uff42ob"]
)
def test_no_user_s_name_can_split_the_answer_of_verify(app, alice, verify, sql, name):
    command = ["users", "add", name, "--password-stdin"]
    added = app.test_cli_runner().invoke(args=command, input="long enough\n")
    assert added.exit_code == 2 and sql("SELECT count(*) FROM users") == [(3,)]
    key = alice.key()
    if "\n" in name:  # even if it were there: it stays in its header
        sql("UPDATE users SET username = :name WHERE username = 'alice'", name=name)
        try:
            answer = verify(key["token"])
        finally:
            sql("UPDATE users SET username = 'alice' WHERE username = :name", name=name)
        assert answer.headers.getlist("X-User-Id") == [key["user_id"]]
        assert answer.headers.getlist("X-User-Name") == [quote(name)]
