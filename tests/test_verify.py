"""/verify: what a gateway is told."""

import os
import socket
import sqlite3
from datetime import datetime, timedelta
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


@pytest.mark.parametrize(
    "mode, scope", [("read", "read"), ("write", "read"), ("write", "read%20write")]
)
def test_a_key_may_do_all_that_its_mode_says(alice, verify, mode, scope):
    answer = verify(alice.key(mode=mode)["token"], f"/verify?scope={scope}")
    assert answer.status_code == 200


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


def test_a_key_is_refused_from_the_very_moment_at_which_it_expires(
    alice, verify, monkeypatch
):
    key = alice.key()
    end = datetime.fromisoformat(key["expires_at"])
    for now, status in ((end - timedelta(microseconds=1), 200), (end, 401)):
        monkeypatch.setattr(verification, "utcnow", lambda now=now: now)
        assert verify(key["token"]).status_code == status


@pytest.mark.parametrize("ahead", [-59, 0, 59])
@pytest.mark.parametrize("kind", ["used", "revoked", "guessed"])
def test_what_is_noted_within_a_minute_is_not_even_tried_to_be_noted_again(
    app, alice, monkeypatch, kind, ahead
):
    """It would wait for SQLite's lock each time; another host's clock may differ."""
    key, asked, now = alice.key(), [], utcnow()
    token = forged(key["token"]) if kind == "guessed" else key["token"]
    if kind == "revoked":
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")

    def get_origin():
        asked.append(kind)
        return Origin("::1", "GET", "/verify")

    for clock in (now + timedelta(seconds=ahead), now, now):
        monkeypatch.setattr(verification, "utcnow", lambda clock=clock: clock)
        app.extensions["verifier"].good_key(token, get_origin)
    assert asked == [kind]


@pytest.mark.parametrize("kind", ["used", "refused", "mismatch"])
def test_what_is_noted_of_one_key_is_noted_of_no_other(alice, bob, verify, sql, kind):
    key = alice.key()
    alice.key()
    bob.key()
    if kind == "refused":
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    verify(forged(key["token"]) if kind == "mismatch" else key["token"])
    noted = sql(f"SELECT id FROM api_keys WHERE last_{kind}_at IS NOT NULL")
    assert noted == [(key["id"],)]
    others = {"used", "refused", "mismatch"} - {kind}
    nothing = " AND ".join(f"last_{other}_at IS NULL" for other in others)
    assert sql(f"SELECT count(*) FROM api_keys WHERE {nothing}") == [(3,)]


def test_a_refusal_that_cannot_be_audited_is_not_noted_and_still_refused(
    alice, verify, sql, monkeypatch, caplog
):
    """Both are one transaction: the next refusal is audited, and not a minute late."""
    key = alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    noted = "SELECT last_refused_at IS NOT NULL FROM api_keys"
    audited = "SELECT reason FROM audit_events WHERE event = 'auth_failed'"
    with monkeypatch.context() as patch:
        patch.setattr(verification, "AUDIT_REFUSAL", "INSERT INTO nowhere VALUES (1)")
        assert verify(key["token"]).status_code == 401
    assert f"use of key {key['id']} not noted" in caplog.text
    assert (sql(noted), sql(audited)) == ([(False,)], [])
    caplog.clear()
    assert verify(key["token"]).status_code == 401
    assert "not noted" not in caplog.text
    assert (sql(noted), sql(audited)) == ([(True,)], [("revoked",)])


def test_a_connection_on_which_something_failed_is_closed_and_not_used_again(app):
    """It may be in the middle of a transaction."""
    verifier = app.extensions["verifier"]
    with pytest.raises(ZeroDivisionError), verifier.cursor() as cursor:
        raise ZeroDivisionError
    assert cursor not in verifier.idle
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError)):
        cursor.execute("SELECT 1")


def test_a_connection_on_which_nothing_failed_is_used_again(app):
    verifier = app.extensions["verifier"]
    with verifier.cursor() as first:
        pass
    with verifier.cursor() as second:
        assert second is first


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


@pytest.mark.parametrize("ahead", [-59, 0, 59])
@pytest.mark.parametrize("kind", ["used", "refused", "mismatch"])
def test_of_two_requests_at_the_same_moment_one_is_noted(
    app, alice, sql, monkeypatch, kind, ahead
):
    """Both have read the row before either writes; their clocks may differ."""
    key, verifier = alice.key(), app.extensions["verifier"]
    token = forged(key["token"]) if kind == "mismatch" else key["token"]
    if kind == "refused":
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    now = utcnow().replace(microsecond=123456)
    other = now + timedelta(seconds=ahead)

    def ask(at, get_origin):
        monkeypatch.setattr(verification, "utcnow", lambda: at)
        return verifier.good_key(token, get_origin)

    def meanwhile():
        """Called when the first has read and not yet written: the second does both."""
        ask(other, lambda: Origin("::2", "GET", "/verify"))
        monkeypatch.setattr(verification, "utcnow", lambda: now)
        return Origin("::1", "GET", "/verify")

    assert bool(ask(now, meanwhile)) is (kind == "used")
    [(noted, ip)] = sql(f"SELECT last_{kind}_at, last_used_ip FROM api_keys")
    assert str(noted)[:26] == other.isoformat(" ")[:26]
    assert ip == ("::2" if kind == "used" else None)
    reasons = {"used": [], "refused": [("revoked",)], "mismatch": [("wrong_secret",)]}
    trail = "SELECT reason FROM audit_events WHERE event = 'auth_failed'"
    assert sql(trail) == reasons[kind]


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
def test_without_a_database_nobody_gets_in_and_healthz_says_so(url, caplog):
    app, token = create_app({"DATABASE_URL": url}), tokens.new_token("lk").text
    assert health(app) == UNAVAILABLE
    headers = {"Authorization": f"Bearer {token}"}
    for method in ("GET", "DELETE", "OPTIONS"):
        answer = app.test_client().open("/verify/x", method=method, headers=headers)
        assert (answer.status_code, answer.data) == (503, b"")
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name, _ in answer.headers if name.startswith("X-")]
    assert caplog.text.count("a key could not be verified") == 3
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
def test_while_a_migration_locks_the_table_it_says_503(
    app, alice, verify, database_url, monkeypatch
):
    """It asks once: to ask again would take as long once more."""
    token, tried = alice.key()["token"], []
    assert verify(token).status_code == 200
    verifier = app.extensions["verifier"]
    first_row = verifier.first_row

    def counted(values):
        tried.append(values)
        return first_row(values)

    with psycopg.connect(database_url) as other, monkeypatch.context() as patch:
        other.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        patch.setattr(verifier, "first_row", counted)
        answer = verify(token)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.data == b""
    assert len(tried) == 1
    assert verify(token).status_code == 200


CLOSE_OTHERS = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
        AND pid <> pg_backend_pid()"""


def cut_off(verifier):
    """As a network that breaks: no word from the server."""
    for cursor in verifier.idle:
        with socket.socket(fileno=os.dup(cursor.connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)


def closed_by_the_server(verifier):
    with psycopg.connect(verifier.database_url) as other:
        assert other.execute(CLOSE_OTHERS).fetchone()[0] > 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_verification_asks_postgresql_to_wait_for_no_standby(app):
    """It writes notes only; test_guarantees.py shows it with a real standby."""
    with app.extensions["verifier"].cursor() as cursor:
        assert cursor.execute("SHOW synchronous_commit").fetchone() == ("local",)


@pytest.mark.parametrize("lose", [cut_off, closed_by_the_server])
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_that_are_lost_stop_no_verification(app, alice, verify, lose):
    """As after a restart of PostgreSQL: a new connection is asked."""
    token, verifier = alice.key()["token"], app.extensions["verifier"]
    assert verify(token).status_code == 200
    assert verifier.idle
    lose(verifier)
    assert verify(token).status_code == 200
    lose(verifier)
    assert verify(forged(token)).status_code == 401


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
