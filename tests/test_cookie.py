"""The browser's session: a cookie that scripts can't read and other sites can't use."""

import re

import pytest
from conftest import PASSWORD
from flask import Blueprint
from servers import disconnect

import tokens
from app import create_app

WHO = {"username": "alice", "password": PASSWORD}
SESSION = "/api/session"
OURS = {"Sec-Fetch-Site": "same-origin"}
FORBIDDEN = {"code": 403, "message": "insufficient permissions", "data": {}}
FOREIGN = {
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "same-site": {"Sec-Fetch-Site": "same-site", "Origin": "http://other.localhost"},
    "typed": {"Sec-Fetch-Site": "none"},
    "empty": {"Sec-Fetch-Site": "", "Origin": "http://localhost"},
    "it lies about the origin": {
        "Sec-Fetch-Site": "cross-site",
        "Origin": "http://localhost",
    },
    "nothing said": {},
    "another origin": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://localhost:81"},
    "another scheme": {"Origin": "https://localhost"},
    "our name in front": {"Origin": "http://localhost.evil.example"},
    "no origin": {"Origin": "null"},
}
foreign = pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
ours = pytest.mark.parametrize(
    "headers", [OURS, {"Origin": "http://localhost"}], ids=["", "old"]
)


@pytest.fixture
def http(app):
    return app.test_client(use_cookies=False)


def sign_in(http, url="http://localhost", **headers):
    return http.post(SESSION, base_url=url, json=WHO, headers={**OURS, **headers})


@pytest.fixture
def cookie(http):
    return {"Cookie": sign_in(http).headers["Set-Cookie"].partition(";")[0]}


@ours
def test_it_works(http, sql, headers):
    answer = http.post(SESSION, json=WHO, headers=headers)
    assert answer.status_code == 200
    assert answer.json["message"] == "login successful"
    assert answer.json["data"].keys() == {
        "expires_at",
        "user",
    }  # the script never sees the token
    cookie, *flags = answer.headers["Set-Cookie"].split("; ")
    assert re.fullmatch(r"latchkey=lks_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", cookie)
    assert set(flags) == {"Path=/api", "HttpOnly", "SameSite=Strict"}
    mine = {"Cookie": cookie}
    assert http.get("/api/me", headers=mine).json["data"]["username"] == "alice"
    wanted = {"name": "script", "mode": "read", "password": PASSWORD}
    made = http.post("/api/me/api-keys", json=wanted, headers={**mine, **headers})
    assert made.status_code == 201
    path = f"/api/me/api-keys/{made.json['data']['id']}"
    assert http.delete(path, headers={**mine, **headers}).json["data"] == {}
    gone = http.delete(SESSION, headers={**mine, **headers})
    assert gone.json == {"code": 200, "message": "logout successful", "data": {}}
    assert gone.status_code == 200 and gone.headers["Set-Cookie"].startswith(
        "latchkey=; "
    )
    assert "Max-Age=0" in gone.headers["Set-Cookie"].split("; ")
    assert http.get("/api/me", headers=mine).status_code == 401
    assert sql("SELECT count(*) FROM sessions") == [(0,)]


def test_a_script_that_asks_for_no_cookie_gets_none(http):
    answer = http.post("/api/auth/login", json=WHO)
    assert answer.json["data"]["token"].startswith("lks_")
    assert "Set-Cookie" not in answer.headers


@foreign
@pytest.mark.parametrize(
    "method, path", [("POST", ""), ("DELETE", ""), ("DELETE", "/some-id")]
)
def test_another_site_changes_nothing(http, sql, cookie, headers, method, path):
    http.open("/api/me/api-keys", method="POST", headers={**cookie, **OURS}, json={
        "name": "script", "mode": "read", "password": PASSWORD,
    })  # fmt: skip
    call = {"method": method, "headers": {**cookie, **headers}, "json": {}}
    answer = http.open(f"/api/me/api-keys{path}", **call)
    assert (answer.status_code, answer.json) == (403, FORBIDDEN)
    assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(1,)]


@foreign
def test_another_site_signs_nobody_in_or_out(http, sql, cookie, headers):
    for method, path in (
        ("POST", SESSION),
        ("DELETE", SESSION),
        ("POST", "/api/auth/logout"),
    ):
        call = {"method": method, "headers": {**cookie, **headers}, "json": WHO}
        answer = http.open(path, **call)
        assert (answer.status_code, answer.json) == (403, FORBIDDEN)
        assert "Set-Cookie" not in answer.headers
    assert sql("SELECT count(*) FROM sessions") == [(1,)]


@foreign
def test_without_a_cookie_another_site_signs_nobody_in_either(http, sql, headers):
    for method in ("POST", "DELETE"):
        answer = http.open(SESSION, method=method, json=WHO, headers=headers)
        assert (answer.status_code, answer.json) == (403, FORBIDDEN)
        assert "Set-Cookie" not in answer.headers
    assert sql("SELECT count(*) FROM sessions") == [(0,)]


def test_a_wrong_password_is_refused_without_a_cookie(http, sql):
    wrong = {**WHO, "password": "wrong"}
    answer = http.post(SESSION, json=wrong, headers=OURS)
    assert answer.status_code == 401
    assert answer.json["message"] == "invalid username or password"
    assert "Set-Cookie" not in answer.headers
    assert sql("SELECT count(*) FROM sessions") == [(0,)]
    failed = "SELECT event, path FROM audit_events"
    assert sql(failed) == [("login_failed", SESSION)]


def test_two_credentials_are_refused_and_not_resolved(http, alice, cookie):
    for theirs in (alice.token, alice.key()["token"]):
        headers = {**cookie, **OURS, "Authorization": f"Bearer {theirs}"}
        answer = http.get("/api/me", headers=headers)
        assert answer.status_code == 401 and answer.json["message"] == "invalid token"
        assert http.delete("/api/me/api-keys", headers=headers).status_code == 401
    keys = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"]
    assert keys[0]["status"] == "active"


@pytest.mark.parametrize(
    "theirs",
    ["Basic dGVhbTpkb29y", "basic dGVhbTpkb29y", "Digest username=team", "", " "],
)
def test_what_the_browser_sends_to_a_proxy_is_no_second_credential(
    http, cookie, theirs
):
    headers = {**cookie, **OURS, "Authorization": theirs}
    assert http.get("/api/me", headers=headers).json["data"]["username"] == "alice"
    assert http.delete("/api/me/api-keys", headers=headers).status_code == 200
    again = sign_in(http, Authorization=theirs)
    assert again.status_code == 200 and "latchkey=lks_" in again.headers["Set-Cookie"]
    gone = http.delete(SESSION, headers=headers)
    assert gone.status_code == 200 and "latchkey=; " in gone.headers["Set-Cookie"]
    assert http.get("/api/me", headers=headers).status_code == 401


OTHERS = {
    "garbage": "latchkey=nonsense",
    "empty": "latchkey=",
    "unknown": "latchkey=" + tokens.new_token("lks").text,
    "a key's shape": "latchkey=" + tokens.new_token("lk").text,
    "another name": "latchkey2=x; theme=dark",
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_of_two_cookies_a_good_one_wins(http, sql, cookie, other):
    good = cookie["Cookie"]
    for both in (f"{good}; {other}", f"{other}; {good}"):
        headers = {"Cookie": both, **OURS}
        assert http.get("/api/me", headers=headers).json["data"]["username"] == "alice"
        assert http.delete("/api/me/api-keys", headers=headers).status_code == 200
        forged = http.delete("/api/me/api-keys", headers={"Cookie": both})
        assert forged.status_code == 403
    gone = http.delete(SESSION, headers=headers)
    assert gone.status_code == 200
    assert sql("SELECT count(*) FROM sessions") == [(0,)]
    assert http.get("/api/me", headers=headers).status_code == 401


def test_an_empty_cookie_is_no_second_credential(http, alice):
    headers = {"Cookie": "latchkey=", "Authorization": f"Bearer {alice.token}"}
    assert http.get("/api/me", headers=headers).json["data"]["username"] == "alice"
    assert http.delete("/api/me/api-keys", headers=headers).status_code == 200


def test_logging_out_ends_the_session_of_every_cookie(http, sql, cookie):
    second = sign_in(http).headers["Set-Cookie"].partition(";")[0]
    both = {"Cookie": f"{cookie['Cookie']}; {second}"}
    assert sql("SELECT count(*) FROM sessions") == [(2,)]
    assert http.delete(SESSION, headers={**both, **OURS}).status_code == 200
    assert sql("SELECT count(*) FROM sessions") == [(0,)]


ENDED = {
    "gone": "DELETE FROM sessions",
    "expired": "UPDATE sessions SET expires_at = '2020-01-01 00:00:00'",
    "suspended": "UPDATE users SET suspended_at = '2020-01-01 00:00:00'",
}


@pytest.mark.parametrize("end", ENDED.values(), ids=ENDED)
def test_logging_out_with_a_session_that_has_ended_clears_the_cookie(
    http, sql, cookie, end
):
    sql(end)
    assert http.get("/api/me", headers=cookie).status_code == 401
    for headers in (cookie, {"Cookie": "latchkey=nonsense"}, {}):
        gone = http.delete(SESSION, headers={**headers, **OURS})
        assert gone.json == {"code": 200, "message": "logout successful", "data": {}}
        flags = gone.headers["Set-Cookie"].split("; ")
        assert flags[0] == "latchkey=" and {"Max-Age=0", "Path=/api"} <= set(flags)


def test_a_cookie_opens_nothing_but_the_api_and_only_with_a_session(
    http, alice, cookie
):
    assert http.get("/verify", headers=cookie).status_code == 401
    for value in (
        alice.key()["token"],
        "lks_",
        "nonsense",
        '"',
        "\N{SNOWMAN}".encode().decode("latin1"),
    ):
        answer = http.get("/api/me", headers={"Cookie": f"latchkey={value}"})
        assert answer.status_code == 401, value


@pytest.mark.parametrize(
    "host, secure",
    [
        ("http://localhost", False),
        ("http://localhost:8000", False),
        ("http://127.0.0.1:8000", False),
        ("http://[::1]:8000", False),
        ("https://localhost", True),
        ("http://keys.example", True),
        ("http://localhost.evil.example", True),
        ("http://[2001:db8::1]:80", True),
        ("https://keys.example:8443", True),
    ],
)
def test_the_cookie_travels_in_the_clear_only_on_this_machine(http, host, secure):
    assert ("; Secure" in sign_in(http, host).headers["Set-Cookie"]) is secure


def test_behind_a_proxy_the_browser_s_own_address_counts(app, database_url):
    behind = {"LATCHKEY_TRUSTED_PROXIES": "1", "LATCHKEY_BCRYPT_ROUNDS": "4"}
    behind = create_app({"DATABASE_URL": database_url, **behind})
    proxied = {"X-Forwarded-Proto": "https", "Host": "keys.example"}
    for origin, status in [("https://keys.example", 200), ("http://keys.example", 403)]:
        headers = {**proxied, "Origin": origin}
        answer = behind.test_client().post(SESSION, json=WHO, headers=headers)
        assert answer.status_code == status
        assert ("; Secure" in answer.headers.get("Set-Cookie", "")) is (status == 200)
    disconnect(behind)


def test_pages_and_files_carry_the_policy_and_answers_are_never_stored(http):
    names = ("style.css", "page.js", "api.js", "icon.svg")
    for path in ("/", *(f"/static/account/{name}" for name in names)):
        with http.get(path) as answer:
            headers = answer.headers
        assert headers["Content-Security-Policy"] == (
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
            "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
            "form-action 'self'"
        )
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == ("no-store" if path == "/" else "no-cache")
        assert ("ETag" in headers) is (path != "/")
    for path in ("/healthz", "/verify"):
        assert "Content-Security-Policy" not in http.get(path).headers


def test_the_page_links_to_the_documentation_only_where_there_is_one(
    http, app, monkeypatch
):
    monkeypatch.setitem(app.blueprints, "docs", Blueprint("docs", __name__))
    assert 'href="/docs"' in http.get("/").text
    monkeypatch.delitem(app.blueprints, "docs")
    assert http.get("/").status_code == 200
    assert 'href="/docs"' not in http.get("/").text
