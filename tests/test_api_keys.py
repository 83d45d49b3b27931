"""Creating and listing keys, and the audit trail."""

import re
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest
from conftest import Person, ago, log_in

from models import api_key


def test_it_works(alice, sql):
    key = alice.key(name="Ünïcode ☃", mode="write")
    assert key["status"] == "active" and key["token"].startswith(
        "lk_" + key["key_public"]
    )
    listed = alice.call("GET", "/api/me/api-keys").json["data"]
    assert listed["pagination"]["total_count"] == 1
    assert listed["api_keys"] == [{k: v for k, v in key.items() if k != "token"}]
    [event] = alice.call("GET", "/api/me/api-keys/audit?event=created").json["data"][
        "audit"
    ]
    assert (event["api_key_id"], event["key_name"]) == (key["id"], "Ünïcode ☃")
    secret = key["token"].rpartition("_")[2]
    for table in ("api_keys", "audit_events", "sessions"):
        assert secret not in str(sql(f"SELECT * FROM {table}"))


def test_the_sixth_active_key_is_refused_until_one_is_gone(alice, sql):
    keys = [alice.key() for _ in range(5)]
    refused = alice.create()
    error = {"key": "limit", "message": "max_keys_reached", "value": "5"}
    data = {"type": "validation_error", "errors": [error]}
    message = "active api key limit reached"
    assert refused.json == {"code": 409, "message": message, "data": data}
    assert refused.status_code == 409
    alice.call("DELETE", f"/api/me/api-keys/{keys[0]['id']}")
    assert [alice.create().status_code for _ in range(2)] == [201, 409]
    sql(
        "UPDATE api_keys SET expires_at = :now WHERE id = :id",
        now=ago(),
        id=keys[1]["id"],
    )
    assert [alice.create().status_code for _ in range(2)] == [201, 409]


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
    assert [(e["key"], e["message"]) for e in answer.json["data"]["errors"]] == [
        (field, code)
    ]
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]


@pytest.mark.parametrize(
    "wanted, days",
    [
        ({}, 90),
        ({"expires_in_days": None}, 90),
        ({"expires_in_days": 1}, 1),
        ({"expires_in_days": 7.0}, 7),
        ({"expires_in_days": 365}, 365),
    ],
)
def test_a_key_lives_as_many_days_as_wanted_and_90_if_none_are(
    alice, verify, sql, wanted, days
):
    key = alice.key(**wanted)
    times = [datetime.fromisoformat(key[name]) for name in ("created_at", "expires_at")]
    assert abs(times[1] - times[0] - timedelta(days=days)) < timedelta(seconds=1)
    rows = sql("SELECT created_at, expires_at FROM api_keys")
    [(began, ends)] = [(datetime.fromisoformat(str(at)) for at in row) for row in rows]
    assert abs(ends - began - timedelta(days=days)) < timedelta(seconds=1)
    sql("UPDATE api_keys SET expires_at = :soon", soon=ago(seconds=-60))
    assert verify(key["token"]).status_code == 200
    sql("UPDATE api_keys SET expires_at = :now", now=ago())
    assert verify(key["token"]).status_code == 401
    assert (
        alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"][0]["status"]
        == "expired"
    )


def test_who_has_more_active_keys_than_a_lowered_limit_gets_no_more(
    app, alice, monkeypatch
):
    keys = [alice.key() for _ in range(3)]
    monkeypatch.setitem(app.config, "LATCHKEY_MAX_ACTIVE_KEYS", 2)
    codes = [alice.create().status_code]
    for key in keys:
        alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
        codes.append(alice.create().status_code)
    assert codes == [409, 409, 201, 201]


def test_a_key_is_expired_from_the_very_moment_at_which_it_expires(alice, monkeypatch):
    end = datetime.fromisoformat(alice.key()["expires_at"])
    before = end - timedelta(microseconds=1)

    def told_at(now):
        monkeypatch.setattr(api_key, "utcnow", lambda: now)
        [key] = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"]
        return key["status"]

    assert (told_at(before), told_at(end)) == ("active", "expired")
    for now, revoked in ((end, 0), (before, 1)):
        monkeypatch.setattr(api_key, "utcnow", lambda now=now: now)
        answer = alice.call("DELETE", "/api/me/api-keys")
        assert answer.json["data"] == {"revoked": revoked}


@pytest.mark.parametrize(
    "wanted, message, value",
    [
        ({"mode": None}, "required", "null"),
        ({"mode": True}, "invalid", "true"),
        ({"mode": "admin"}, "not_one_of", "admin"),
        ({"mode": ["read"]}, "invalid", ""),
        ({"expires_in_days": 1e9}, "out_of_range", "1000000000.0"),
        ({"expires_in_days": -1}, "out_of_range", "-1"),
        ({"expires_in_days": "7 "}, "invalid", "7 "),
        ({"name": "é" * 101}, "too_long", "é" * 100),
        ({"password": "no"}, "incorrect_password", ""),
        ({"password": None}, "required", ""),
    ],
)
def test_an_error_echoes_json_as_json_and_a_string_as_it_was_sent(
    alice, sql, wanted, message, value
):
    answer, [field] = alice.create(**wanted), wanted
    error = {"key": field, "message": message, "value": value}
    data = {"type": "validation_error", "errors": [error]}
    assert answer.json == {"code": 400, "message": "validation failed", "data": data}
    assert answer.status_code == 400 and sql("SELECT count(*) FROM api_keys") == [(0,)]


BAD_PAGES = {
    "page=0": "out_of_range",
    "page=x": "invalid",
    "page=1e9": "invalid",
    "page=": "invalid",
}
BAD_PAGES |= {"page_size=0": "out_of_range", "page_size=101": "out_of_range"}


@pytest.mark.parametrize("query", BAD_PAGES)
@pytest.mark.parametrize("path", ["/api/me/api-keys", "/api/me/api-keys/audit"])
def test_bad_paging_is_refused(alice, path, query):
    answer, (field, _, value) = (
        alice.call("GET", f"{path}?{query}"),
        query.partition("="),
    )
    error = {"key": field, "message": BAD_PAGES[query], "value": value}
    assert (answer.status_code, answer.json["data"]["errors"]) == (400, [error])


# By page: which of the three, newest first; has_next, has_prev, next_page, prev_page.
PAGES = {
    1: ([3, 2], True, False, 2, None),
    2: ([1], False, True, None, 1),
    9: ([], False, True, None, 8),
}


@pytest.mark.parametrize("what", ["api_keys", "audit"])
@pytest.mark.parametrize("page", PAGES)
def test_keys_and_audit_events_come_in_pages_newest_first(alice, what, page):
    made = [alice.key(name=f"key {n}")["id"] for n in range(1, 4)]
    names, *around = PAGES[page]
    path = "/api/me/api-keys" + ("/audit" if what == "audit" else "")
    answer = alice.call("GET", f"{path}?page={page}&page_size=2")
    told = answer.json["data"]
    ids = [row["api_key_id" if what == "audit" else "id"] for row in told[what]]
    assert (answer.status_code, ids) == (200, [made[n - 1] for n in names])
    counts = {"page": page, "page_size": 2, "total_count": 3, "total_pages": 2}
    fields = ("has_next", "has_prev", "next_page", "prev_page")
    assert told["pagination"] == counts | dict(zip(fields, around, strict=True))


def test_active_keys_come_first_then_newest(alice, sql):
    """So the first page has every key that still opens something."""
    made = {name: alice.key(name=name)["id"] for name in ("a", "b", "c", "d", "e")}
    alice.call("DELETE", f"/api/me/api-keys/{made['c']}")
    sql(
        "UPDATE api_keys SET expires_at = :now WHERE id = :id",
        now=ago(),
        id=made["e"],
    )
    path = "/api/me/api-keys"
    pages = [alice.call("GET", f"{path}?page_size=3&page={n}") for n in (1, 2)]
    listed = [page.json["data"]["api_keys"] for page in pages]
    assert [key["name"] for key in sum(listed, [])] == ["d", "b", "a", "e", "c"]
    states = [key["status"] for key in sum(listed, [])]
    assert states == ["active"] * 3 + ["expired", "revoked"]


KEY = """INSERT INTO api_keys
    (id, user_id, name, key_public, digest, mode, created_at, expires_at)
    VALUES (:id, :user, 'script', :id, :digest, 'read', :now, :now)"""
EVENT = """INSERT INTO audit_events (created_at, event, user_id, method, path)
    VALUES (:now, 'created', :user, 'POST', '/')"""


@pytest.mark.parametrize("what, row", [("api_keys", KEY), ("audit", EVENT)])
def test_a_page_has_100_unless_fewer_are_wanted(alice, sql, what, row):
    values = {"user": alice.call("GET", "/api/me").json["data"]["id"], "now": ago()}
    for n in range(101):
        extra = {"id": f"key{n}", "digest": bytes([n])} if row == KEY else {}
        sql(row, **values, **extra)
    path = "/api/me/api-keys" + ("/audit" if what == "audit" else "")
    data = alice.call("GET", path).json["data"]
    assert len(data[what]) == 100
    around = [data["pagination"][name] for name in ("page_size", "total_count")]
    assert around == [100, 101]
    assert len(alice.call("GET", f"{path}?page=2").json["data"][what]) == 1


def test_the_audit_trail_is_filtered_by_event_and_by_key(alice, bob):
    one, two, his = alice.key(), alice.key(mode="write", name="two"), bob.key()
    path = "/api/me/api-keys"
    alice.call("DELETE", f"{path}/{two['id']}")
    log_in(alice.http, "alice", "wrong")

    def trail(**only):
        events = alice.call("GET", f"{path}/audit", query_string=only).json["data"][
            "audit"
        ]
        return [(event["event"], event["api_key_id"]) for event in events]

    ones, twos = (
        [("created", one["id"])],
        [("revoked", two["id"]), ("created", two["id"])],
    )
    assert trail() == [("login_failed", None), *twos, *ones]
    assert trail(event="created") == [twos[1], *ones]
    assert trail(event="login_failed") == [("login_failed", None)]
    assert trail(event="auth_failed") == []
    assert trail(api_key_id=two["id"]) == twos
    assert trail(api_key_id=two["id"], event="revoked") == twos[:1]
    assert trail(api_key_id=his["id"]) == trail(api_key_id="x") == []
    events = alice.call("GET", f"{path}/audit?event=revoked").json["data"]["audit"]
    assert events[0].pop("id") and events[0].pop("created_at").endswith("Z")
    about = {"api_key_id": two["id"], "user_id": two["user_id"], "key_name": "two"}
    about |= {
        "key_mode": "write",
        "event": "revoked",
        "reason": None,
        "ip": "127.0.0.1",
    }
    assert events == [about | {"method": "DELETE", "path": f"{path}/{two['id']}"}]


def test_nobody_sees_what_is_not_theirs(app, alice, bob):
    """In both directions: of two ids one is the greater."""
    charlie = Person(app, "charlie")
    path = "/api/me/api-keys"
    for person in (alice, bob):
        made = person.key()["id"]
        listed = person.call("GET", path).json["data"]["api_keys"]
        assert [key["id"] for key in listed] == [made]
        trail = person.call("GET", f"{path}/audit").json["data"]["audit"]
        assert [event["api_key_id"] for event in trail] == [made]
    assert charlie.call("GET", path).json["data"]["api_keys"] == []
    assert charlie.call("GET", f"{path}/audit").json["data"]["audit"] == []


def test_the_limit_of_active_keys_is_for_each_user(alice, bob):
    for person in (alice, bob):
        codes = [person.create().status_code for _ in range(6)]
        assert codes == [201] * 5 + [409]
    again = [person.call("DELETE", "/api/me/api-keys") for person in (alice, bob)]
    assert [answer.json["data"]["revoked"] for answer in again] == [5, 5]


def test_every_api_route_but_the_login_asks_who_it_is(app):
    """The account page signs in and out in a way of its own (test_cookie.py)."""
    http, seen = app.test_client(), 0
    public = {"login.login", "account_page.log_in", "account_page.log_out"}
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/") and rule.endpoint not in public:
            for method in rule.methods - {"OPTIONS", "HEAD"}:
                path = re.sub("<.+?>", "x", rule.rule)
                assert http.open(path, method=method).status_code == 401, rule
                seen += 1
    assert seen == 8


def test_no_answer_under_api_lets_a_browser_guess_its_type(app, alice, bob):
    """Answers and refusals alike; a key's name may be HTML."""
    alice.key(name="<script>alert(1)</script>")
    answers = [bob.create(), bob.create(name=""), bob.call("GET", "/api/nowhere")]
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/"):
            path = re.sub("<.+?>", "x", rule.rule)
            for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS"):
                answers.append(app.test_client().open(path, method=method))
                answers.append(alice.call(method, path, json={}))
    codes = {answer.status_code for answer in answers}
    assert codes >= {200, 201, 400, 401, 404, 405}
    kinds = {answer.headers.get("X-Content-Type-Options") for answer in answers}
    assert kinds == {"nosniff"}


DATED = """INSERT INTO audit_events (created_at, event, user_id, method, path)
    VALUES (:time, 'created', :user, 'POST', :path)"""
TIMES = [  # as both databases store them, in UTC
    "2026-07-27 23:59:59.999999",
    "2026-07-28 00:00:00.000000",
    "2026-07-28 22:30:00.000000",
]
DATES = {  # which of the three are shown, newest first
    "since=2026-07-28": [2, 1],
    "until=2026-07-28": [0],
    "since=2026-07-28T00:00:00Z": [2, 1],
    "since=2026-07-28T00:00:00.000001Z": [2],
    "since=2026-07-29T00:30:00%2B02:00": [2],
    "until=2026-07-28T22:30:00Z": [1, 0],
    "until=2026-07-28T18:30:00.5-04:00": [2, 1, 0],
    "since=2026-07-28&until=2026-07-28T12:00:00Z": [1],
    "since=2026-07-28T12:00:00&event=created": [2],
    "since=2026-07-29&until=2026-07-28": [],
    "since=0001-01-01&until=9999-12-31": [2, 1, 0],
}


@pytest.mark.parametrize("query", DATES)
def test_the_audit_trail_is_filtered_by_date(alice, sql, query):
    user = alice.call("GET", "/api/me").json["data"]["id"]
    for n, time in enumerate(TIMES):
        sql(DATED, time=time, user=user, path=f"/{n}")
    answer = alice.call("GET", f"/api/me/api-keys/audit?{query}")
    events = answer.json["data"]["audit"]
    assert [event["path"] for event in events] == [f"/{n}" for n in DATES[query]]
    assert answer.json["data"]["pagination"]["total_count"] == len(events)


NO_TIMES = [
    "nonsense",
    "2026-02-30",
    "2026-13-01",
    "1785200000",
    "0001-01-01T00:00:00+01:00",  # before the year 1 in UTC
    "9999-12-31T23:59:59-01:00",  # after the year 9999
]


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time_is_refused(alice, field, text):
    path = f"/api/me/api-keys/audit?{field}={quote(text)}"
    answer = alice.call("GET", path)
    error = {"key": field, "message": "invalid", "value": text}
    assert (answer.status_code, answer.json["data"]["errors"]) == (400, [error])


def test_the_id_of_an_event_is_text(alice, sql):
    """As every other id; a number could be too large for a JavaScript client."""
    alice.key()
    sql("UPDATE audit_events SET id = 9007199254740993")
    [event] = alice.call("GET", "/api/me/api-keys/audit").json["data"]["audit"]
    assert event["id"] == "9007199254740993"
