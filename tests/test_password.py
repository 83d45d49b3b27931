"""Changing one's own password, by the API."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest
from conftest import Person, ago, log_in
from servers import PASSWORD

from models.database import db
from models.user import User

PATH = "/api/me/password"
NEW = "tractor violin cloud"


@pytest.fixture(autouse=True)
def known_passwords(app):
    """Everybody has the password of the other tests again afterwards."""
    yield
    with app.app_context():
        for user in db.session.scalars(db.select(User)):
            user.set_password(PASSWORD)
        db.session.commit()


def change(person, password=PASSWORD, new_password=NEW):
    passwords = {"password": password, "new_password": new_password}
    return person.call("POST", PATH, json=passwords)


def signs_in(app, password, name="alice"):
    return log_in(app.test_client(), name, password).status_code == 200


def test_it_works(app, alice, sql):
    answer = change(alice)
    assert (answer.status_code, answer.json) == (
        200,
        {"code": 200, "message": "password changed successfully", "data": {}},
    )
    told = "SELECT event, reason, method, path, api_key_id FROM audit_events"
    assert sql(told) == [("password_changed", None, "POST", PATH, None)]
    assert signs_in(app, NEW) and not signs_in(app, PASSWORD)
    path = "/api/me/api-keys/audit?event=password_changed"
    [event] = alice.call("GET", path).json["data"]["audit"]
    assert event["path"] == PATH


def test_the_other_sessions_end_and_nothing_else_does(app, alice, bob, verify):
    elsewhere, key = Person(app, "alice"), alice.key()
    assert change(alice).status_code == 200
    assert elsewhere.call("GET", "/api/me").status_code == 401
    assert alice.call("GET", "/api/me").status_code == 200
    assert bob.call("GET", "/api/me").status_code == 200
    assert verify(key["token"]).status_code == 200
    assert signs_in(app, PASSWORD, "bob")


def test_a_wrong_password_changes_nothing(app, alice, sql):
    elsewhere = Person(app, "alice")
    answer = change(alice, password="wrong")
    error = {"key": "password", "message": "incorrect_password", "value": ""}
    assert answer.status_code == 400
    assert answer.json["data"] == {"type": "validation_error", "errors": [error]}
    assert sql("SELECT event, path FROM audit_events") == [("login_failed", PATH)]
    assert elsewhere.call("GET", "/api/me").status_code == 200
    assert signs_in(app, PASSWORD) and not signs_in(app, NEW)


def test_a_stolen_session_cannot_guess_the_password(app, alice):
    codes = [change(alice, password="wrong").status_code for _ in range(12)]
    assert codes == [400] * 10 + [429] * 2
    refused = change(alice)
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 800
    assert log_in(app.test_client(), "alice").status_code == 429  # they count together


REFUSED = {
    "seven characters": ("1234567", "too_short"),
    "empty": ("", "too_short"),
    "73 bytes": ("x" * 73, "too_long"),
    "74 bytes, 37 characters": ("ä" * 37, "too_long"),
    "over 72 bytes in NFC only": ("\u0958" * 13, "too_long"),
    "a line end": ("correct\nhorse", "invalid"),
    "a control of Latin-1": ("correct\x85horse", "invalid"),
    "NUL": ("correct\0horse", "invalid"),
    "half a character": ("correct \ud800 horse", "invalid"),
    "a number": (12345678, "invalid"),
    "null": (None, "required"),
}


@pytest.mark.parametrize("new, code", REFUSED.values(), ids=REFUSED)
def test_an_unfit_password_is_refused_and_not_repeated(app, alice, sql, new, code):
    answer = change(alice, new_password=new)
    error = {"key": "new_password", "message": code, "value": ""}
    assert answer.status_code == 400 and answer.json["data"]["errors"] == [error]
    assert sql("SELECT count(*) FROM audit_events") == [(0,)]
    assert signs_in(app, PASSWORD)


FIT = {
    "eight characters": "12345678",
    "72 bytes": "x" * 72,
    "72 bytes in NFC only": "a\u0308" * 36,
    "spaces": "        ",
    "the same again": PASSWORD,
}


@pytest.mark.parametrize("new", FIT.values(), ids=FIT)
def test_a_fit_password_is_taken(app, alice, new):
    assert change(alice, new_password=new).status_code == 200
    assert signs_in(app, new)


@pytest.mark.parametrize("lacking", ["password", "new_password"])
def test_both_passwords_are_required(alice, lacking):
    passwords = {"password": PASSWORD, "new_password": NEW}
    del passwords[lacking]
    answer = alice.call("POST", PATH, json=passwords)
    error = {"key": lacking, "message": "required", "value": ""}
    assert answer.status_code == 400 and answer.json["data"]["errors"] == [error]


def test_a_key_cannot_change_a_password(app, alice):
    bearer = {"Authorization": f"Bearer {alice.key()['token']}"}
    passwords = {"password": PASSWORD, "new_password": NEW}
    answer = app.test_client().post(PATH, json=passwords, headers=bearer)
    assert answer.status_code == 403 and signs_in(app, PASSWORD)


def test_whoever_is_suspended_meanwhile_changes_nothing(app, alice, sql, monkeypatch):
    checkpw = bcrypt.checkpw

    def suspend_and_check(*args):
        sql("UPDATE users SET suspended_at = :now WHERE username = 'alice'", now=ago())
        return checkpw(*args)

    monkeypatch.setattr(bcrypt, "checkpw", suspend_and_check)
    assert change(alice).status_code == 400
    monkeypatch.undo()
    sql("UPDATE users SET suspended_at = NULL")
    assert signs_in(app, PASSWORD)


def test_a_password_that_an_operator_sets_meanwhile_stays(app, alice, monkeypatch):
    hashpw, theirs = bcrypt.hashpw, "set by an operator"

    def set_and_hash(*args):
        monkeypatch.undo()
        with app.app_context():
            user = User.by_name("alice")
            user.set_password(theirs)
            db.session.commit()
        return hashpw(*args)

    monkeypatch.setattr(bcrypt, "hashpw", set_and_hash)
    answer = change(alice)
    [error] = answer.json["data"]["errors"]
    assert (answer.status_code, error["message"]) == (400, "incorrect_password")
    assert signs_in(app, theirs) and not signs_in(app, NEW)


def test_both_runs_of_bcrypt_keep_to_the_limit(app, alice, bob, monkeypatch):
    """Two run at once and one waits: the last of a worker's four threads is free.

    None of them keeps a lock or a connection meanwhile: keys are still revoked.
    """
    key = alice.key()
    busy, go_on, hashpw = [], threading.Event(), bcrypt.hashpw

    def wait(password, salt):
        busy.append(password)
        assert go_on.wait(30)
        return hashpw(password, salt)

    charlie = Person(app, "charlie")
    monkeypatch.setattr(bcrypt, "hashpw", wait)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(change, person) for person in (alice, bob, charlie)]
        deadline = time.monotonic() + 20
        while len(busy) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # the third would have begun too
        assert len(busy) == 2
        refused = [log_in(app.test_client(), "alice"), change(alice)]
        revoked = alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
        go_on.set()
        codes = [each.result().status_code for each in waiting]
    assert [answer.status_code for answer in refused] == [503] * 2
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert revoked.status_code == 200
    assert codes == [200] * 3
