"""/verify: what a gateway is told."""

from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
from conftest import ago
from servers import disconnect, prepared

import tokens
from app import create_app
from models import verification
from models.audit_event import Origin
from models.database import utcnow


def forged(token):
    """Another secret behind the same public part, with a right checksum."""
    body = token[:16] + tokens.new_token("lk").text[16:-6]
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
    assert answer.headers["X-Key-Expires-At"] == f"{key['expires_at'][:19]}Z"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "stored, told",
    [
        ("2099-01-02 03:04:05", "2099-01-02T03:04:05Z"),
        ("2099-01-02 03:04:05.000000", "2099-01-02T03:04:05Z"),
        ("2099-12-31 23:59:59.999999", "2099-12-31T23:59:59Z"),
    ],
)
def test_it_says_when_the_key_expires_cut_to_the_second(
    alice, verify, sql, stored, told
):
    """RFC 3339, in UTC; never later than the key does expire."""
    token = alice.key()["token"]
    sql("UPDATE api_keys SET expires_at = :stored", stored=stored)
    assert verify(token).headers["X-Key-Expires-At"] == told


def test_a_read_key_may_not_write(alice, verify):
    answer = verify(alice.key()["token"], "/verify?scope=write")
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert not [name for name, _ in answer.headers if name.startswith("X-")]


def test_a_key_refused_for_its_scope_is_audited_once_a_minute(alice, verify, sql):
    key = alice.key()
    asked = [verify(key["token"], "/verify?scope=write") for _ in range(5)]
    assert [answer.status_code for answer in asked] == [403] * 5
    trail = (
        "SELECT reason, api_key_id, ip FROM audit_events WHERE event = 'auth_failed'"
    )
    assert sql(trail) == [("insufficient_scope", key["id"], "127.0.0.1")]
    assert verify(key["token"]).status_code == 200  # what it may do, it still may


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
}


@pytest.mark.parametrize("modify", MODIFIERS.values(), ids=MODIFIERS)
def test_a_bad_token_is_one_opaque_401(alice, verify, modify):
    answer = verify(modify(alice.key()["token"]))
    assert (answer.status_code, answer.data) == (401, b"")
    assert (
        answer.headers["WWW-Authenticate"]
        == 'Bearer realm="latchkey", error="invalid_token"'
    )
    assert not [name for name, _ in answer.headers if name.startswith("X-")]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Token lk_x"]
)
@pytest.mark.parametrize("path", ["/verify", "/api/me"])
def test_where_no_bearer_token_came_the_challenge_names_no_error(app, path, header):
    """RFC 6750, 3.1: a client that sent none learns how, and not that it was wrong."""
    headers = {} if header is None else {"Authorization": header}
    answer = app.test_client().get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="latchkey"'


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
def test_a_dead_key_is_refused_and_audited_once_a_minute(
    alice, verify, sql, reason, change
):
    token = alice.key()["token"]
    sql(change)
    answers = [verify(token) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401] * 5
    assert not [answer for answer in answers if "X-Key-Expires-At" in answer.headers]
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [
        (reason,)
    ]


@pytest.mark.parametrize("age, again", [(55, False), (61, True)])
@pytest.mark.parametrize("kind", ["used", "refused", "mismatch"])
def test_after_a_minute_it_is_noted_again(alice, verify, sql, kind, age, again):
    key = alice.key()
    # A note of one kind is none of another.
    assert verify(key["token"]).status_code == 200
    if kind == "refused":
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    token = forged(key["token"]) if kind == "mismatch" else key["token"]
    first, then = verify(token).status_code, ago(seconds=age)
    sql(
        f"UPDATE api_keys SET last_{kind}_at = :then, last_used_ip = 'before'",
        then=then,
    )
    assert verify(token).status_code == first == (200 if kind == "used" else 401)
    [(noted, ip)] = sql(
        f"SELECT last_{kind}_at > :then, last_used_ip FROM api_keys", then=then
    )
    assert bool(noted) is again
    assert ip == ("127.0.0.1" if kind == "used" and again else "before")
    rows = sql("SELECT count(*) FROM audit_events WHERE event = 'auth_failed'")
    assert rows == [(0 if kind == "used" else 1 + again,)]


@pytest.mark.parametrize("behind", [0, 1])
def test_of_two_refusals_at_the_same_moment_one_is_written_down(
    app, alice, sql, monkeypatch, behind
):
    """Both have read the row before either writes; one clock is so many ms behind."""
    guess, now = forged(alice.key()["token"]), utcnow()
    verifier, here = app.extensions["verifier"], Origin("::1", "GET", "/verify")
    monkeypatch.setattr(verification, "utcnow", lambda: now)

    def meanwhile():
        """Called when the first has read and not yet written: the second does both."""
        assert verifier.good_key(guess, lambda: here) is None
        earlier = now - timedelta(milliseconds=behind)
        monkeypatch.setattr(verification, "utcnow", lambda: earlier)
        return here

    assert verifier.good_key(guess, meanwhile) is None
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [
        ("wrong_secret",)
    ]


def test_what_was_noted_while_the_clock_was_ahead_does_not_count_as_noted(
    alice, verify, sql
):
    good, revoked = alice.key(), alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{revoked['id']}")
    ahead = "last_used_at = '2099-01-01', last_refused_at = '2099-01-01'"
    sql(f"UPDATE api_keys SET {ahead}")
    assert verify(good["token"]).status_code == 200
    assert verify(revoked["token"]).status_code == 401
    [key, _] = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"]
    assert key["id"] == good["id"] and key["last_used_at"] < "2099"
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [
        ("revoked",)
    ]


HEALTHY = (200, {"code": 200, "message": "ok", "data": {}})
UNAVAILABLE = (503, {"code": 503, "message": "service unavailable", "data": {}})
NOWHERE = ["sqlite:////nowhere/latchkey.db", "postgresql://u@/d?host=/nowhere"]


def health(app):
    answer = app.test_client().get("/healthz")
    return answer.status_code, answer.json


def test_healthz(app):
    assert health(app) == HEALTHY


@pytest.mark.parametrize("url", NOWHERE, ids=["sqlite", "postgresql"])
def test_without_a_database_nobody_gets_in_and_healthz_says_so(url):
    app, token = create_app({"DATABASE_URL": url}), tokens.new_token("lk").text
    assert health(app) == UNAVAILABLE
    headers = {"Authorization": f"Bearer {token}"}
    for method in ("GET", "DELETE", "OPTIONS"):
        answer = app.test_client().open("/verify/x", method=method, headers=headers)
        assert (answer.status_code, answer.data) == (503, b"")
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name, _ in answer.headers if name.startswith("X-")]
    disconnect(app)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_no_transaction_is_left_open(migrated_app, alice, verify, database_url):
    """It would stop a migration."""
    verify(alice.key()["token"])
    assert health(migrated_app) == HEALTHY
    states = "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
    others = f"{states} AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    with psycopg.connect(database_url) as other:
        assert {state for (state,) in other.execute(others)} == {"idle"}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_healthz_says_when_nothing_can_be_revoked(new_database_url):
    with prepared(new_database_url) as app:
        assert health(app) == HEALTHY
        name = urlsplit(new_database_url).path[1:]
        read_only = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
        with psycopg.connect(new_database_url, autocommit=True) as other:
            other.execute(read_only)
        disconnect(app)  # a new connection finds it so
        assert health(app) == UNAVAILABLE


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_while_a_migration_locks_the_table_it_says_503(alice, verify, database_url):
    token = alice.key()["token"]
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        answer = verify(token)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.data == b""
    assert verify(token).status_code == 200


def test_a_wrong_secret_with_a_right_checksum_is_refused_and_audited_once(
    alice, verify, sql
):
    good = alice.key()["token"]
    guess = forged(good)
    assert [verify(guess).status_code for _ in range(3)] == [401] * 3
    assert verify(good).status_code == 200
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [
        ("wrong_secret",)
    ]
