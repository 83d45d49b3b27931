"""Creating and listing keys, and the audit trail."""

import pytest


def test_it_works(alice, sql):
    key = alice.key(name="Ünïcode ☃", mode="write")
    assert key["status"] == "active" and key["token"].startswith("lk_" + key["key_public"])
    listed = alice.call("GET", "/api/me/api-keys").json["data"]
    assert listed["pagination"]["total_count"] == 1
    assert listed["api_keys"] == [{k: v for k, v in key.items() if k != "token"}]
    [event] = alice.call("GET", "/api/me/api-keys/audit?event=created").json["data"]["audit"]
    assert (event["api_key_id"], event["key_name"]) == (key["id"], "Ünïcode ☃")
    secret = key["token"].rpartition("_")[2]
    for table in ("api_keys", "audit_events", "sessions"):
        assert secret not in str(sql(f"SELECT * FROM {table}"))


def test_the_sixth_active_key_is_refused_until_one_is_gone(alice):
    keys = [alice.key() for _ in range(5)]
    assert alice.create().status_code == 409
    alice.call("DELETE", f"/api/me/api-keys/{keys[0]['id']}")
    assert alice.create().status_code == 201


@pytest.mark.parametrize(
    "wanted, field, code",
    [
        ({"name": ""}, "name", "required"),
        ({"name": " \n"}, "name", "required"),
        ({"name": "x" * 101}, "name", "too_long"),
        ({"name": "a\0b"}, "name", "invalid"),
        ({"name": None}, "name", "required"),
        ({"mode": "admin"}, "mode", "not_one_of"),
        ({"expires_in_days": 0}, "expires_in_days", "out_of_range"),
        ({"expires_in_days": 366}, "expires_in_days", "out_of_range"),
        ({"expires_in_days": "7"}, "expires_in_days", "invalid"),
        ({"expires_in_days": 1.5}, "expires_in_days", "invalid"),
        ({"expires_in_days": 10**400}, "expires_in_days", "out_of_range"),
        ({"user_id": "x"}, "user_id", "unknown_field"),
        ({"password": "wrong"}, "password", "incorrect_password"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_made(alice, sql, wanted, field, code):
    answer = alice.create(**wanted)
    assert answer.status_code == 400
    assert [(e["key"], e["message"]) for e in answer.json["data"]["errors"]] == [(field, code)]
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]


@pytest.mark.parametrize("query", ["page=0", "page=x", "page_size=101", "event=x", "page=1e9"])
def test_bad_paging_is_refused(alice, query):
    assert alice.call("GET", f"/api/me/api-keys/audit?{query}").status_code == 400


def test_nobody_sees_what_is_not_theirs(alice, bob):
    alice.key()
    assert bob.call("GET", "/api/me/api-keys").json["data"]["api_keys"] == []
    assert bob.call("GET", "/api/me/api-keys/audit").json["data"]["audit"] == []


def test_every_api_route_but_the_login_asks_who_it_is(app):
    http, seen = app.test_client(), 0
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/") and rule.endpoint != "login.login":
            for method in rule.methods - {"OPTIONS", "HEAD"}:
                path = rule.rule.replace("<anything:key_id>", "x")
                assert http.open(path, method=method).status_code == 401, rule
                seen += 1
    assert seen == 7
