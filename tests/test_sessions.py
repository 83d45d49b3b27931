"""Signing in and out, and the throttle."""

import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta
from itertools import islice
from threading import Event, Timer

import bcrypt
import pytest
from conftest import ago, log_in
from servers import PASSWORD

from models.audit_event import AuditEvent, Origin
from models.database import Refused, db


def test_it_works(alice):
    assert alice.call("GET", "/api/me").json["data"]["username"] == "alice"
    assert alice.call("POST", "/api/auth/logout").json["data"] == {}
    assert alice.call("GET", "/api/me").status_code == 401


def test_signing_in_is_in_the_trail_and_a_refusal_is_not_called_so(app, sql):
    """On success the failed attempt that was written first is gone."""
    trail = "SELECT event, reason, ip, path FROM audit_events"
    assert log_in(app.test_client(), "alice", "wrong").status_code == 401
    failed = ("login_failed", "incorrect_password", "127.0.0.1", "/api/auth/login")
    assert sql(trail) == [failed]
    assert log_in(app.test_client(), "alice", ip="192.0.2.7").status_code == 200
    signed_in = ("signed_in", "password", "192.0.2.7", "/api/auth/login")
    assert sql(trail) == [failed, signed_in]


def test_a_user_name_is_the_same_in_any_case(app):
    assert (
        log_in(app.test_client(), "ALICE").json["data"]["user"]["username"] == "alice"
    )


@pytest.mark.parametrize("name", ["alice", "nobody", "ALICE", "' OR 1=1 --"])
def test_a_wrong_password_and_a_wrong_name_get_one_answer(app, name):
    answer = log_in(app.test_client(), name, "wrong")
    assert answer.status_code == 401
    assert answer.json == {
        "code": 401,
        "message": "invalid username or password",
        "data": {},
    }


def test_the_throttle_holds_under_concurrency_and_refuses_the_right_password(app, sql):
    def guess(number):
        return log_in(app.test_client(), "alice", "wrong").status_code

    with ThreadPoolExecutor(2) as pool:  # more at once are told to come again
        codes = list(pool.map(guess, range(16)))
    assert codes.count(401) <= 10 and set(codes) <= {401, 429}
    for _ in range(10):
        log_in(app.test_client(), "alice", "wrong")
    answer = log_in(app.test_client(), "alice")
    assert answer.status_code == 429 and 0 < int(answer.headers["Retry-After"]) <= 900
    assert sql("SELECT count(*) FROM audit_events WHERE event = 'login_failed'") == [
        (10,)
    ]


ONE_NAME = [("alice", f"192.0.2.{n}") for n in range(11)]
ONE_ADDRESS = [(f"nobody{n}", "192.0.2.1") for n in range(11)]
ONE_NETWORK = [(f"nobody{n}", f"2001:db8:0:1:{n}::1") for n in range(11)]
MAPPED = [(f"nobody{n}", "::ffff:192.0.2.1") for n in range(11)]


@pytest.mark.parametrize(
    "tried, throttled, free",
    [
        (ONE_NAME, ("Alice", "192.0.2.99"), ("bob", "192.0.2.99")),
        (ONE_ADDRESS, ("bob", "192.0.2.1"), ("bob", "192.0.2.2")),
        (ONE_NETWORK, ("bob", "2001:db8:0:1::9"), ("bob", "2001:db8:0:2::1")),
        (MAPPED, ("bob", "192.0.2.1"), ("bob", "::ffff:192.0.2.2")),
    ],
    ids=["one name", "one address", "one /64 of IPv6", "IPv4 as IPv6"],
)
def test_ten_failures_close_the_name_and_the_address_for_fifteen_minutes(
    app, sql, tried, throttled, free
):
    http, (name, ip) = app.test_client(), throttled
    codes = [log_in(http, who, "wrong", where).status_code for who, where in tried]
    assert codes == [401] * 10 + [429]
    refused = log_in(http, name, ip=ip)
    assert refused.json == {
        "code": 429,
        "message": "too many failed attempts",
        "data": {},
    }
    assert 890 < int(refused.headers["Retry-After"]) <= 900
    assert log_in(http, free[0], ip=free[1]).status_code == 200
    sql("UPDATE audit_events SET created_at = :then", then=ago(minutes=14))
    assert log_in(http, name, "wrong", ip).status_code == 429
    sql("UPDATE audit_events SET created_at = :then", then=ago(minutes=16))
    assert log_in(http, name, "wrong", ip).status_code == 401
    assert sql("SELECT count(*) FROM audit_events WHERE event = 'login_failed'") == [
        (11,)
    ]


def test_the_eleventh_attempt_is_refused_and_not_written_down(app, sql):
    with app.app_context():
        for number in range(11):
            attempt = AuditEvent.record(
                "login_failed", Origin("x", "POST", "/"), name_digest="d"
            )
            if number < 10:
                attempt.refuse_if_too_many()
                db.session.commit()
        with pytest.raises(Refused) as refused:
            attempt.refuse_if_too_many()
        assert 0 < refused.value.value <= 900
    assert sql("SELECT count(*) FROM audit_events") == [(10,)]


def test_the_trail_keeps_the_whole_address(app, sql):
    for ip in ("2001:DB8:0:1:0::1", "::ffff:192.0.2.1"):
        log_in(app.test_client(), "alice", "wrong", ip)
    rows = sql("SELECT ip FROM audit_events ORDER BY id")
    assert rows == [("2001:db8:0:1::1",), ("192.0.2.1",)]


def test_a_stolen_session_cannot_guess_the_password(alice):
    codes = [alice.create(password="wrong").status_code for _ in range(12)]
    assert codes == [400] * 10 + [429] * 2
    assert alice.create().status_code == 429


@pytest.fixture
def slow_bcrypt(monkeypatch):
    """bcrypt that waits for ``go_on``; ``running`` has an item for each check."""
    running, go_on, checkpw = [], Event(), bcrypt.checkpw

    def check(password, stored):
        running.append(password)
        assert go_on.wait(30)
        return checkpw(password, stored)

    monkeypatch.setattr(bcrypt, "checkpw", check)
    yield running, go_on
    go_on.set()


@pytest.fixture(params=["log-in", "step-up"])
def prove(request, app, alice):
    """Send the right password: to sign in, or to create a key."""
    if request.param == "step-up":
        return alice.create
    return lambda: log_in(app.test_client(), "alice")


def test_two_passwords_are_checked_at_once_and_the_others_come_again(
    alice, prove, verify, slow_bcrypt
):
    """One more waits: the last of a worker's four threads is free to verify keys."""
    running, go_on = slow_bcrypt
    go_on.set()
    key = alice.key()
    go_on.clear()
    running.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(prove) for _ in range(4)]
        try:
            refused = [each.result() for each in islice(as_completed(asked, 5), 1)]
            refused += [log_in(alice.http, "bob"), alice.create()]
            assert verify(key["token"]).status_code == 200
            deadline = time.monotonic() + 10
            while len(running) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(running) == 2
        finally:
            go_on.set()
        codes = sorted(each.result().status_code for each in asked)
    assert codes[:3] in ([200] * 3, [201] * 3) and codes[3:] == [503]
    for answer in refused:
        body = {"code": 503, "message": "service unavailable", "data": {}}
        assert (answer.status_code, answer.json) == (503, body)
        assert answer.headers["Retry-After"] == "1"
    assert prove().status_code in (200, 201)


def test_who_comes_while_two_passwords_are_checked_waits_for_a_moment(
    prove, slow_bcrypt
):
    running, go_on = slow_bcrypt
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(prove) for _ in range(2)]
        while len(running) < 2:
            time.sleep(0.01)
        Timer(0.1, go_on.set).start()
        asked.append(pool.submit(prove))
    codes = [each.result().status_code for each in asked]
    assert codes in ([200] * 3, [201] * 3)


@pytest.fixture(params=["password_hash", "suspended_at"])
def changed_during_bcrypt(request, monkeypatch, sql):
    """While a password is found right, the operator changes it or suspends Alice."""
    new = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    value = new if request.param == "password_hash" else ago(seconds=1)

    def checked(password, stored):
        sql(
            f"UPDATE users SET {request.param} = :value WHERE username = 'alice'",
            value=value,
        )
        return True

    return lambda: monkeypatch.setattr(bcrypt, "checkpw", checked)


def test_a_password_changed_or_a_user_suspended_while_it_is_checked_lets_nobody_in(
    app, sql, changed_during_bcrypt
):
    changed_during_bcrypt()
    answer = log_in(app.test_client(), "alice")
    wrong = {"code": 401, "message": "invalid username or password", "data": {}}
    assert (answer.status_code, answer.json) == (401, wrong)
    assert sql("SELECT count(*) FROM sessions") == [(0,)]
    assert sql("SELECT event FROM audit_events") == [("login_failed",)]


def test_a_password_changed_or_a_user_suspended_while_it_is_checked_makes_no_key(
    alice, sql, changed_during_bcrypt
):
    changed_during_bcrypt()
    answer = alice.create()
    error = {"key": "password", "message": "incorrect_password", "value": ""}
    assert (answer.status_code, answer.json["data"]["errors"]) == (400, [error])
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]
    assert sql("SELECT event FROM audit_events") == [("login_failed",)]


def test_a_session_lives_twelve_hours(app, sql):
    before = datetime.fromisoformat(ago())
    data = log_in(app.test_client(), "alice").json["data"]
    end = datetime.fromisoformat(data["expires_at"])
    assert timedelta(0) <= end - before - timedelta(hours=12) < timedelta(seconds=10)
    rows = sql("SELECT created_at, expires_at FROM sessions")
    [(began, ended)] = [(datetime.fromisoformat(str(at)) for at in row) for row in rows]
    assert abs(ended - began - timedelta(hours=12)) < timedelta(seconds=1)


def test_an_expired_session_is_dead(alice, sql):
    sql("UPDATE sessions SET expires_at = :past", past="2020-01-01 00:00:00")
    assert alice.call("GET", "/api/me").status_code == 401


@pytest.mark.parametrize(
    "body, key, code",
    [
        (b"", "body", "invalid_json"),
        (b"[" * 10000, "body", "invalid_json"),
        (b"[]", "body", "invalid"),
        (b"null", "body", "invalid"),
        (b"{}", "password", "required"),
        (b'{"username": "a", "password": 1}', "password", "invalid"),
        (b'{"username": "a\\u0000", "password": "x"}', "username", "invalid"),
        (b'{"username": "\\ud800", "password": "x"}', "username", "invalid"),
        (b'{"username": "a", "password": "x", "more": 1}', "more", "unknown_field"),
        (
            b'{"username": "a", "password": "' + b"\xc3\xa9" * 37 + b'"}',
            "password",
            "too_long",
        ),
    ],
)
def test_bad_bodies_get_a_clear_400(app, body, key, code):
    answer = app.test_client().post(
        "/api/auth/login", data=body, content_type="application/json"
    )
    assert answer.status_code == 400
    assert (key, code) in {
        (e["key"], e["message"]) for e in answer.json["data"]["errors"]
    }


def test_too_large_and_not_json(app):
    http = app.test_client()
    big = http.post(
        "/api/auth/login", data=b" " * 20000, content_type="application/json"
    )
    plain = http.post("/api/auth/login", data=b"{}", content_type="text/plain")
    wrong = http.get("/api/auth/login")
    assert [a.status_code for a in (big, plain, wrong)] == [413, 415, 405]
    assert all(
        a.json["code"] == a.status_code and a.json["data"] == {} for a in (big, plain)
    )
    assert "POST" in wrong.headers["Allow"]
