"""GET /metrics: what Prometheus reads is what the database holds."""

import pytest
from conftest import ago, log_in
from prometheus_client.parser import text_string_to_metric_families as parse


@pytest.fixture
def scrape(app):
    """Every sample, by name and labels, as Prometheus' own library reads the answer."""

    def ask(token):
        headers = {"Authorization": f"Bearer {token}"}
        answer = app.test_client().get("/metrics", headers=headers)
        assert answer.status_code == 200
        kind = "text/plain; version=0.0.4; charset=utf-8"
        assert answer.headers["Content-Type"] == kind
        families = list(parse(answer.text))
        assert {family.type for family in families} == {"gauge"}
        assert all(family.documentation for family in families)
        return {
            (
                sample.name.removeprefix("latchkey_"),
                *sample.labels.values(),
            ): sample.value
            for family in families
            for sample in family.samples
        }

    return ask


def test_it_works(scrape, alice, sql):
    key = alice.key(expires_in_days=60)
    alice.key(expires_in_days=6)
    alice.key(expires_in_days=29)
    sql("DELETE FROM audit_events")
    revoked = alice.key(expires_in_days=6)
    alice.call("DELETE", f"/api/me/api-keys/{revoked['id']}")
    assert scrape(key["token"]) == {
        ("active_keys",): 3,
        ("expiring_keys", "7"): 1,
        ("expiring_keys", "30"): 2,
        ("sessions",): 1,
        ("events_last_hour", "created", ""): 1,
        ("events_last_hour", "revoked", ""): 1,
    }


def test_what_has_ended_is_not_counted(scrape, alice, bob, sql):
    key = alice.key()
    expired = alice.key()["id"]
    sql(
        "UPDATE api_keys SET expires_at = :then WHERE id = :id",
        then=ago(hours=1),
        id=expired,
    )
    before = scrape(key["token"])
    assert (before["active_keys",], before["sessions",]) == (1, 2)
    sql("UPDATE sessions SET expires_at = :then", then=ago(seconds=2))
    assert scrape(key["token"])["sessions",] == 0


def test_events_are_counted_by_kind_and_reason_for_an_hour(scrape, alice, verify, sql):
    key, dead = alice.key(), alice.key()
    sql("DELETE FROM audit_events")
    alice.call("DELETE", f"/api/me/api-keys/{dead['id']}")
    verify(dead["token"])
    verify(key["token"], "/verify?scope=write")
    for _ in range(3):
        log_in(alice.http, "alice", "wrong")
    kinds = {
        ("revoked", ""): 1,
        ("auth_failed", "revoked"): 1,
        ("auth_failed", "insufficient_scope"): 1,
        ("login_failed", "incorrect_password"): 3,
    }
    told = {name[1:]: n for name, n in scrape(key["token"]).items() if len(name) == 3}
    assert told == kinds
    sql("UPDATE audit_events SET created_at = :then", then=ago(minutes=61))
    assert [name for name in scrape(key["token"]) if len(name) == 3] == []


@pytest.mark.parametrize("sent", ["nothing", "garbage", "session", "revoked"])
def test_it_needs_an_api_key(app, alice, sent):
    revoked = alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{revoked['id']}")
    token = {"session": alice.token, "revoked": revoked["token"]}.get(sent, sent)
    headers = {} if sent == "nothing" else {"Authorization": f"Bearer {token}"}
    answer = app.test_client().get("/metrics", headers=headers)
    assert answer.status_code == 401
    assert answer.json == {"code": 401, "message": "invalid token", "data": {}}
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="latchkey"')


def test_no_client_makes_a_label(scrape, alice, sql):
    """Names, keys, paths and what prune has deleted are in no label."""
    forged = 'x"} 1\nforged{y="'
    key = alice.key(name=forged)
    before = scrape(key["token"]).keys()
    for name in (forged, "nobody"):
        log_in(alice.http, name, forged)
    alice.call("DELETE", f"/api/me/api-keys/{forged}")
    pruned = "INSERT INTO audit_events (created_at, event, reason, method, path)"
    sql(f"{pruned} VALUES (:now, 'pruned', '3 sessions', 'CLI', 'x')", now=ago())
    new = scrape(key["token"]).keys() - before
    assert new == {("events_last_hour", "login_failed", "incorrect_password")}
