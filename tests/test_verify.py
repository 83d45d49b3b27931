"""/verify: what a gateway is told."""

from datetime import timedelta

import psycopg
import pytest
from conftest import ago
from servers import disconnect

import tokens
from app import create_app
from models import verification
from models.base import db, utcnow


def forged(token):
    """Another secret behind the same public part, with a right checksum."""
    body = token[:16] + tokens.mint("lk").text[16:-6]
    return body + tokens.checksum(body)


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


@pytest.mark.parametrize("age, again", [(55, False), (61, True)])
@pytest.mark.parametrize("kind", ["used", "refused", "mismatch"])
def test_after_a_minute_it_is_noted_again(alice, verify, sql, kind, age, again):
    key = alice.key()
    assert verify(key["token"]).status_code == 200  # a note of one kind is none of another
    if kind == "refused":
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    token = forged(key["token"]) if kind == "mismatch" else key["token"]
    first, then = verify(token).status_code, ago(seconds=age)
    sql(f"UPDATE api_keys SET last_{kind}_at = :then, last_used_ip = 'before'", then=then)
    assert verify(token).status_code == first == (200 if kind == "used" else 401)
    [(noted, ip)] = sql(f"SELECT last_{kind}_at > :then, last_used_ip FROM api_keys", then=then)
    assert bool(noted) is again
    assert ip == ("127.0.0.1" if kind == "used" and again else "before")
    rows = sql("SELECT count(*) FROM audit_events WHERE event = 'auth_failed'")
    assert rows == [(0 if kind == "used" else 1 + again,)]


@pytest.mark.parametrize("behind", [0, 1])
def test_of_two_refusals_at_the_same_moment_one_is_written_down(
    app, alice, verify, sql, monkeypatch, behind
):
    """Both have read the row before either writes; the second's clock is so many ms behind."""
    guess, now = forged(alice.key()["token"]), utcnow()
    with app.app_context():
        row = verification.find(db.engines["verify"], tokens.parse(guess, "lk").public)
    clock = iter([now, now - timedelta(milliseconds=behind)])
    monkeypatch.setattr(verification, "find", lambda *asked: row)
    monkeypatch.setattr(verification, "utcnow", lambda: next(clock))
    assert [verify(guess).status_code for _ in range(2)] == [401] * 2
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [("wrong_secret",)]


WELL = (200, {"code": 200, "message": "ok", "data": {}})
GONE = (503, {"code": 503, "message": "service unavailable", "data": {}})


def test_healthz(app):
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.json) == WELL


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_healthz_asks_the_primary_and_the_standby(migrated_app, database_url):
    def health(primary=database_url, standby=database_url):
        app = create_app({"DATABASE_URL": primary, "LATCHKEY_VERIFY_DATABASE_URL": standby})
        answer = app.test_client().get("/healthz")
        disconnect(app)
        return answer.status_code, answer.json

    with psycopg.connect(database_url) as other:  # what is in a transaction would stop a migration
        migrated_app.test_client().get("/healthz")
        idle = "SELECT state FROM pg_stat_activity WHERE application_name = 'latchkey-hasty'"
        assert {state for (state,) in other.execute(idle)} == {"idle"}
    nowhere = "postgresql://u@/d?host=/nowhere"
    assert [health(), health(primary=nowhere), health(standby=nowhere)] == [WELL, GONE, GONE]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_while_a_migration_locks_the_table_it_says_503(alice, verify, database_url):
    token = alice.key()["token"]
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        answer = verify(token)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert verify(token).status_code == 200


def test_a_wrong_secret_with_a_right_checksum_is_refused_and_audited_once(alice, verify, sql):
    good = alice.key()["token"]
    guess = forged(good)
    assert [verify(guess).status_code for _ in range(3)] == [401] * 3
    assert verify(good).status_code == 200
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [("wrong_secret",)]
