"""/verify: what a gateway is told."""

import pytest

import tokens


@pytest.mark.parametrize(
    "path", ["/verify", "/verify/", "/verify//a", "/verify/%00/%0A", "/verify/a/b"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND", "OPTIONS"])
def test_it_works_for_any_method_and_path(alice, verify, path, method):
    key = alice.key(mode="write")
    answer = verify(key["token"], path + "?scope=write", method)
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["X-User-Id"] == key["user_id"]
    assert answer.headers["X-User-Name"] == "alice"
    assert answer.headers["X-Key-Id"] == key["id"]
    assert answer.headers["X-Key-Scopes"] == "read write"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_read_key_may_not_write(alice, verify):
    answer = verify(alice.key()["token"], "/verify?scope=write")
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert not [name for name, _ in answer.headers if name.startswith("X-")]


MODIFIERS = {
    "truncated": lambda token: token[:-1],
    "longer": lambda token: token + "0",
    "one character changed": lambda token: (
        token[:20] + ("a" if token[20] != "a" else "b") + token[21:]
    ),
    "another case": str.swapcase,
    "another prefix": lambda token: "xx" + token[2:],
    "a session's prefix": lambda token: "lks" + token[2:],
    "twice": lambda token: f"{token} {token}",
    "8 KB": lambda token: token * 120,
    "nothing": lambda token: "",
}


@pytest.mark.parametrize("modify", MODIFIERS.values(), ids=MODIFIERS)
def test_a_bad_token_is_one_opaque_401(alice, verify, modify):
    answer = verify(modify(alice.key()["token"]))
    assert (answer.status_code, answer.data) == (401, b"")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="latchkey", error="invalid_token"'


def test_a_session_is_no_key(alice, verify):
    assert verify(alice.token).status_code == 401


def test_last_use_is_noted_once_a_minute(alice, verify, sql):
    token = alice.key()["token"]
    verify(token)
    [(first, ip)] = sql("SELECT last_used_at, last_used_ip FROM api_keys")
    verify(token)
    assert first and ip == "127.0.0.1"
    assert sql("SELECT last_used_at, last_used_ip FROM api_keys") == [(first, ip)]


@pytest.mark.parametrize(
    "reason, change",
    [
        ("revoked", "UPDATE api_keys SET revoked_at = '2020-01-01 00:00:00'"),
        ("expired", "UPDATE api_keys SET expires_at = '2020-01-01 00:00:00'"),
        ("user_suspended", "UPDATE users SET suspended_at = '2020-01-01 00:00:00'"),
    ],
)
def test_a_dead_key_is_refused_and_audited_once_a_minute(alice, verify, sql, reason, change):
    token = alice.key()["token"]
    sql(change)
    assert [verify(token).status_code for _ in range(5)] == [401] * 5
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [(reason,)]


def test_healthz(app):
    answer = app.test_client().get("/healthz")
    assert answer.json == {"code": 200, "message": "ok", "data": {}}


def test_a_wrong_secret_with_a_right_checksum_is_refused_and_audited_once(alice, verify, sql):
    good = alice.key()["token"]
    body = good[:16] + tokens.mint("lk").text[16:-6]
    forged = body + tokens.checksum(body)
    assert [verify(forged).status_code for _ in range(3)] == [401] * 3
    assert verify(good).status_code == 200
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [("wrong_secret",)]
