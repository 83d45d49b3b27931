"""Signing in and out, and the throttle."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import log_in

from models.audit_event import AuditEvent, Origin
from models.base import Refused, db


def test_it_works(alice):
    assert alice.call("GET", "/api/me").json["data"]["username"] == "alice"
    assert alice.call("POST", "/api/auth/logout").json["data"] == {}
    assert alice.call("GET", "/api/me").status_code == 401


@pytest.mark.parametrize("name", ["alice", "nobody", "ALICE", "' OR 1=1 --"])
def test_a_wrong_password_and_a_wrong_name_get_one_answer(app, name):
    answer = log_in(app.test_client(), name, "wrong")
    assert answer.status_code == 401
    assert answer.json == {"code": 401, "message": "invalid username or password", "data": {}}


def test_the_throttle_holds_under_concurrency_and_refuses_the_right_password(app, sql):
    with ThreadPoolExecutor(2) as pool:  # more at once are told to come again (test_server.py)
        codes = list(
            pool.map(lambda n: log_in(app.test_client(), "alice", "wrong").status_code, range(16))
        )
    assert codes.count(401) <= 10 and set(codes) <= {401, 429}
    for _ in range(10):
        log_in(app.test_client(), "alice", "wrong")
    answer = log_in(app.test_client(), "alice")
    assert answer.status_code == 429 and 0 < int(answer.headers["Retry-After"]) <= 900
    assert sql("SELECT count(*) FROM audit_events WHERE event = 'login_failed'") == [(10,)]


def test_the_eleventh_attempt_is_refused_and_not_written_down(app, sql):
    with app.app_context():
        for number in range(11):
            attempt = AuditEvent.record("login_failed", Origin("x", "POST", "/"), name_digest="d")
            if number < 10:
                attempt.throttle()
                db.session.commit()
        with pytest.raises(Refused) as refused:
            attempt.throttle()
        assert 0 < refused.value.value <= 900
    assert sql("SELECT count(*) FROM audit_events") == [(10,)]


def test_a_stolen_session_cannot_guess_the_password(alice):
    codes = [alice.create(password="wrong").status_code for _ in range(12)]
    assert codes == [400] * 10 + [429] * 2
    assert alice.create().status_code == 429


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
        (b'{"username": "a", "password": "' + b"\xc3\xa9" * 37 + b'"}', "password", "too_long"),
    ],
)
def test_bad_bodies_get_a_clear_400(app, body, key, code):
    answer = app.test_client().post("/api/auth/login", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert (key, code) in {(e["key"], e["message"]) for e in answer.json["data"]["errors"]}


def test_too_large_and_not_json(app):
    http = app.test_client()
    big = http.post("/api/auth/login", data=b" " * 20000, content_type="application/json")
    plain = http.post("/api/auth/login", data=b"{}", content_type="text/plain")
    wrong = http.get("/api/auth/login")
    assert [a.status_code for a in (big, plain, wrong)] == [413, 415, 405]
    assert all(a.json["code"] == a.status_code and a.json["data"] == {} for a in (big, plain))
    assert "POST" in wrong.headers["Allow"]
