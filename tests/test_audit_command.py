"""flask audit: who did what to which key, and when."""

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from conftest import ago, log_in
from flask.cli import FlaskGroup

from models.database import utcnow


@pytest.fixture
def flask(app):
    def run(*words):
        group = FlaskGroup(create_app=lambda: app, name="flask")
        return CliRunner().invoke(group, words)

    return run


def lines(told):
    assert told.exit_code == 0
    return told.output.splitlines()[1:]


def test_it_tells_who_tried_a_dead_key_last_night(flask, app, alice, bob):
    key = alice.key(name="back up")
    alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    bearer = {"Authorization": f"Bearer {key['token']}"}
    from_there = {"REMOTE_ADDR": "203.0.113.7"}
    http = app.test_client()
    http.get("/verify", headers=bearer, environ_overrides=from_there)
    bob.key()
    since = f"{utcnow() - timedelta(hours=12):%Y-%m-%dT%H:%M:%SZ}"
    told = flask("audit", "--event", "auth_failed", "--since", since)
    [line] = lines(told)
    _, event, reason, ip, user, public, *name = line.split()
    assert (event, ip, user) == ("auth_failed", "203.0.113.7", "alice")
    assert (reason, public) == ("revoked", key["key_public"])
    assert name == ["back", "up"]


def test_each_filter_leaves_out_the_rest_and_the_newest_is_last(flask, alice, bob):
    one, two = alice.key(), alice.key()
    bob.key()
    flask("keys", "revoke", one["id"])
    events = [line.split()[1] for line in lines(flask("audit"))]
    assert events == ["created", "created", "created", "revoked"]
    assert len(lines(flask("audit", "--user", "bob"))) == 1
    assert len(lines(flask("audit", "--event", "created"))) == 3
    assert len(lines(flask("audit", "--user", "alice", "--event", "created"))) == 2
    for named in (one["id"], f"lk_{one['key_public']}\u2026", one["token"]):
        assert len(lines(flask("audit", "--key", named))) == 2
    assert len(lines(flask("audit", "--key", two["key_public"]))) == 1


@pytest.mark.parametrize("days, left", [(1, 1), (3, 2), (30, 3)])
def test_since_takes_a_date_or_a_time(flask, alice, sql, days, left):
    for age in (2, 10):
        key = alice.key()
        at = {"then": ago(days=age), "id": key["id"]}
        sql("UPDATE audit_events SET created_at = :then WHERE api_key_id = :id", **at)
    alice.key()
    since = utcnow() - timedelta(days=days)
    for text in (f"{since:%Y-%m-%d}", f"{since:%Y-%m-%dT%H:%M:%SZ}"):
        assert len(lines(flask("audit", "--since", text))) == left


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "7", "2026-11-24T03:00:00+01:00", "-1d"]
)
def test_another_time_is_refused_with_the_formats(flask, text):
    told = flask("audit", "--since", text)
    assert told.exit_code == 2
    assert "does not match the formats '%Y-%m-%d', '%Y-%m-%dT%H:%M:%SZ'" in told.output


def test_in_json_an_event_has_the_fields_of_the_api(flask, app, alice):
    alice.key()
    log_in(app.test_client(), "alice", "wrong")
    shown = alice.call("GET", "/api/me/api-keys/audit").json["data"]["audit"]
    told = [json.loads(line) for line in flask("audit", "--json").output.splitlines()]
    assert [event.keys() for event in told] == [
        event.keys() | {"username", "key_public"} for event in shown
    ]
    for ours, of_api in zip(told, reversed(shown), strict=True):
        assert str(ours["id"]) == str(of_api["id"])
        del of_api["id"]
        assert ours.items() >= of_api.items()


def test_of_a_name_that_was_typed_it_shows_no_digest(flask, app, sql):
    log_in(app.test_client(), "my password by mistake")
    [(digest,)] = sql("SELECT name_digest FROM audit_events")
    for words in (["audit"], ["audit", "--json"]):
        told = flask(*words)
        assert "login_failed" in told.output
        assert digest not in told.output


def test_the_event_of_a_user_and_a_key_that_are_gone_stays(flask, alice, sql):
    key = alice.key(name="old")
    sql("DELETE FROM api_keys WHERE id = :id", id=key["id"])
    [line] = lines(flask("audit"))
    assert line.split()[1] == "created"
    assert line.endswith("  old")
