"""What happens when the machine's clock is put back."""

from datetime import timedelta

from models import base


def test_a_clock_that_steps_back_is_told_to_the_log(monkeypatch, caplog):
    monkeypatch.setitem(base.clock, "latest", base.utcnow() + timedelta(hours=1))
    base.utcnow()
    base.utcnow()
    [record] = caplog.records
    assert "the clock stepped back by 0:59:59" in record.getMessage()


def test_what_was_noted_while_the_clock_was_ahead_does_not_count_as_noted(alice, verify, sql):
    good, dead = alice.key(), alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{dead['id']}")
    sql("UPDATE api_keys SET last_used_at = '2099-01-01', last_refused_at = '2099-01-01'")
    assert verify(good["token"]).status_code == 200
    assert verify(dead["token"]).status_code == 401
    used = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"][1]["last_used_at"]
    assert used < "2099"
    assert sql("SELECT reason FROM audit_events WHERE event = 'auth_failed'") == [("revoked",)]
