"""Signing in with a certified identity provider, without a browser."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl

import pytest
from conftest import PASSWORD, ago, log_in
from conftest import Person as OwnerOfPassword
from oidc import SECRET, Person, Provider, settings
from servers import disconnect, free_port

from app import create_app

pytestmark = pytest.mark.live
HERE = "http://localhost"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="session")
def provider(request, tmp_path_factory):
    provider = Provider(request.config, tmp_path_factory.mktemp("oidc"))
    provider.start(HERE)
    yield provider
    provider.stop()


@pytest.fixture
def make(app, sql, database_url):
    """Latchkey with this provider, over the test's database."""
    made = []
    sql("DELETE FROM identities")

    def make(issuer, **more):
        environ = {"DATABASE_URL": database_url, "LATCHKEY_BCRYPT_ROUNDS": "4"}
        made.append(create_app(environ | settings(issuer, **more)))
        return made[-1]

    yield make
    for each in made:
        disconnect(each)


@pytest.fixture
def latchkey(make, provider):
    return make(provider.issuer)


@pytest.fixture
def person():
    """Make somebody, with a browser of their own at the provider."""
    people = []

    def make(subject):
        people.append(Person(subject))
        return people[-1]

    yield make
    for each in people:
        each.http.close()


def sign_in(browser, person, query=""):
    """The answer of the callback."""
    begun = browser.get(f"/login/oidc{query}")
    assert begun.status_code == 303
    return browser.get(person.go_through(begun.location))


def who(browser):
    return browser.get("/api/me").json["data"].get("username")


def trail(sql):
    rows = sql("SELECT event, reason, user_id FROM audit_events ORDER BY id")
    return [tuple(row) for row in rows]


def test_it_works(latchkey, person, sql):
    browser = latchkey.test_client()
    answer = sign_in(browser, person("Dora"))
    assert (answer.status_code, answer.location) == (303, "/")
    me = browser.get("/api/me").json["data"]
    assert me["username"] == "dora" and me["has_password"] is False
    assert trail(sql) == [
        ("user_added", "oidc", me["id"]),
        ("signed_in", "oidc", me["id"]),
    ]
    wanted = {"name": "script", "mode": "read"}
    created = browser.post("/api/me/api-keys", json=wanted, headers=OURS)
    assert created.status_code == 201
    key = {"Authorization": f"Bearer {created.json['data']['token']}"}
    assert browser.get("/verify", headers=key).headers["X-User-Name"] == "dora"


def test_the_second_sign_in_is_the_same_user(latchkey, person, sql):
    for _ in range(2):
        browser = latchkey.test_client()
        sign_in(browser, person("dora"))
        assert who(browser) == "dora"
    assert len(sql("SELECT * FROM users WHERE username LIKE 'dora%'")) == 1


def test_the_callback_s_cookies(latchkey, person):
    browser = latchkey.test_client()
    begun = browser.get("/login/oidc")
    flags = re.sub(
        r"(latchkey-oidc|Expires)=[^;]+", r"\1=x", begun.headers["Set-Cookie"]
    )
    assert flags == (
        "latchkey-oidc=x; Expires=x; Max-Age=600; HttpOnly; Path=/login/oidc; "
        "SameSite=Lax"
    )


# --- who is who -----------------------------------------------------------------------


def test_the_same_subject_of_another_provider_is_another_user(
    request, make, provider, person, tmp_path
):
    other = Provider(request.config, tmp_path).start(HERE)
    try:
        names = []
        for issuer in (provider.issuer, other.issuer):
            browser = make(issuer).test_client()
            sign_in(browser, person("dora"))
            names.append(who(browser))
    finally:
        other.stop()
    assert names[0] == "dora" and re.fullmatch("dora-[0-9a-f]{8}", names[1])


def test_without_sign_up_only_linked_people_get_in(make, provider, person, sql):
    latchkey = make(provider.issuer, LATCHKEY_OIDC_SIGN_UP="off")
    browser = latchkey.test_client()
    assert sign_in(browser, person("dora")).location == "/#no_account"
    assert who(browser) is None
    assert trail(sql) == [("oidc_refused", "no_account", None)]
    run = latchkey.test_cli_runner().invoke
    linked = run(args=["users", "link", "Charlie", provider.issuer, "dora"])
    assert linked.output == "charlie: user linked\n"
    sign_in(browser, person("dora"))
    assert who(browser) == "charlie"


def test_who_is_unlinked_is_out(latchkey, provider, person):
    run = latchkey.test_cli_runner().invoke
    run(args=["users", "link", "charlie", provider.issuer, "dora"])
    browser = latchkey.test_client()
    sign_in(browser, person("dora"))
    assert run(args=["users", "unlink", "charlie"]).output == "charlie: user unlinked\n"
    assert who(browser) is None
    sign_in(browser, person("dora"))
    assert who(browser) == "dora"  # another user from now on


def test_an_identity_can_be_linked_to_somebody_else(latchkey, provider, person, sql):
    run = latchkey.test_cli_runner().invoke
    for name in ("bob", "charlie"):
        run(args=["users", "link", name, provider.issuer, "dora"])
    browser = latchkey.test_client()
    sign_in(browser, person("dora"))
    assert who(browser) == "charlie"
    assert [event for event, *_ in trail(sql)][:2] == ["user_linked"] * 2


@pytest.mark.parametrize("words", [["link", "nobody", "x", "y"], ["unlink", "nobody"]])
def test_nobody_is_linked_to_nobody(latchkey, words):
    told = latchkey.test_cli_runner().invoke(args=["users", *words])
    assert told.exit_code == 2 and "no user named nobody" in told.output


def test_a_suspended_user_gets_in_by_no_way(latchkey, person, sql):
    browser = latchkey.test_client()
    sign_in(browser, person("dora"))
    wanted = {"name": "script", "mode": "read"}
    created = browser.post("/api/me/api-keys", json=wanted, headers=OURS)
    key = {"Authorization": f"Bearer {created.json['data']['token']}"}
    latchkey.test_cli_runner().invoke(args=["users", "suspend", "dora"])
    assert who(browser) is None
    answer = sign_in(browser, person("dora"))
    assert answer.location == "/#suspended" and who(browser) is None
    assert (
        browser.post("/api/me/api-keys", json=wanted, headers=OURS).status_code == 401
    )
    assert browser.get("/verify", headers=key).status_code == 401
    assert log_in(latchkey.test_client(), "dora").status_code == 401
    [[reason, user_id]] = [row[1:] for row in trail(sql) if row[0] == "oidc_refused"]
    assert reason == "suspended" and user_id
    latchkey.test_cli_runner().invoke(args=["users", "restore", "dora"])
    sign_in(browser, person("dora"))
    assert who(browser) == "dora"


@pytest.mark.parametrize("password", ["", "a", ".", "None", PASSWORD])
def test_no_password_is_right_for_who_has_none(latchkey, person, password):
    browser = latchkey.test_client()
    sign_in(browser, person("dora"))
    answer = log_in(latchkey.test_client(), "dora", password)
    assert answer.status_code == (401 if password else 400)
    wanted = {"name": "script", "mode": "read", "password": password}
    answer = browser.post("/api/me/api-keys", json=wanted, headers=OURS)
    assert answer.status_code == 400


def test_with_a_new_password_it_is_asked_for(latchkey, person):
    browser = latchkey.test_client()
    sign_in(browser, person("dora"))
    command = ["users", "password", "dora", "--password-stdin"]
    latchkey.test_cli_runner().invoke(args=command, input=f"{PASSWORD}\n")
    assert who(browser) is None
    sign_in(browser, person("dora"))
    assert browser.get("/api/me").json["data"]["has_password"] is True
    wanted = {"name": "script", "mode": "read"}
    answer = browser.post("/api/me/api-keys", json=wanted, headers=OURS)
    assert answer.status_code == 400
    assert answer.json["data"]["errors"][0]["key"] == "password"
    answer = browser.post(
        "/api/me/api-keys", json={**wanted, "password": PASSWORD}, headers=OURS
    )
    assert answer.status_code == 201
    assert log_in(latchkey.test_client(), "dora").status_code == 200


# --- the way there and back -----------------------------------------------------------


def test_the_way_there_asks_for_nothing_more_than_it_needs(latchkey, provider):
    begun = latchkey.test_client().get("/login/oidc")
    where, _, query = begun.location.partition("?")
    asked = dict(parse_qsl(query))
    assert where == f"{provider.issuer}/auth"
    random = {asked.pop(name) for name in ("state", "nonce", "code_challenge")}
    assert {len(text) for text in random} == {43} and len(random) == 3
    assert asked == {
        "response_type": "code",
        "client_id": "latchkey",
        "redirect_uri": f"{HERE}/login/oidc/callback",
        "scope": "openid profile",
        "code_challenge_method": "S256",
    }


def test_the_public_url_is_the_address_to_come_back_to(make, provider):
    latchkey = make(provider.issuer, LATCHKEY_PUBLIC_URL="https://keys.example.org")
    begun = latchkey.test_client().get("/login/oidc")
    asked = dict(parse_qsl(begun.location.partition("?")[2]))
    assert asked["redirect_uri"] == "https://keys.example.org/login/oidc/callback"


def test_the_callback_works_once(latchkey, person, sql):
    browser = latchkey.test_client()
    begun = browser.get("/login/oidc")
    cookie = browser.get_cookie("latchkey-oidc", path="/login/oidc")
    callback = person("dora").go_through(begun.location)
    assert browser.get(callback).location == "/"
    assert browser.get_cookie("latchkey-oidc", path="/login/oidc") is None
    assert browser.get(callback).location == "/#other_state"
    assert who(browser) == "dora"  # still
    thief = latchkey.test_client()
    thief.set_cookie("latchkey-oidc", cookie.value, path="/login/oidc")
    assert thief.get(callback).location == "/#provider_failed"  # the code was used
    assert who(thief) is None
    assert len(sql("SELECT * FROM sessions")) == 1


def test_a_callback_for_another_browser_signs_nobody_in(latchkey, person):
    """Whoever has begun a sign-in cannot end it in somebody else's browser."""
    begun = latchkey.test_client().get("/login/oidc")
    callback = person("mallory").go_through(begun.location)
    idle, busy = latchkey.test_client(), latchkey.test_client()
    busy.get("/login/oidc")  # has begun a sign-in as well
    for victim in (idle, busy):
        assert victim.get(callback).location == "/#other_state"
        assert who(victim) is None


def test_the_provider_says_no(latchkey, sql):
    browser = latchkey.test_client()
    begun = browser.get("/login/oidc")
    state = dict(parse_qsl(begun.location.partition("?")[2]))["state"]
    query = {"error": "access_denied", "error_description": "<b>", "state": state}
    answer = browser.get("/login/oidc/callback", query_string=query)
    assert answer.location == "/#denied"
    assert trail(sql) == [("oidc_refused", "denied", None)]


@pytest.mark.parametrize(
    "cookie", ["", "..", "a", "a.b", "a.b.c.d", "ä.b.c", "a" * 4000]
)
def test_any_cookie_gets_an_answer(latchkey, cookie):
    browser = latchkey.test_client()
    browser.set_cookie("latchkey-oidc", cookie, path="/login/oidc")
    for query in ("", "?state=", "?state=a", "?state=ä&code=b", "?code=b&iss=c"):
        answer = browser.get(f"/login/oidc/callback{query}")
        assert answer.status_code == 303 and answer.location.startswith("/#")


def test_over_https_the_cookies_are_secure(make, provider):
    browser = make(provider.issuer).test_client()
    begun = browser.get("/login/oidc", base_url="https://keys.example.org")
    flags = "; Secure; HttpOnly; Path=/login/oidc; SameSite=Lax"
    assert begun.headers["Set-Cookie"].endswith(flags)


def test_the_session_s_cookie_is_that_of_the_page(latchkey, person):
    browser = latchkey.test_client()
    answer = sign_in(browser, person("dora"))
    [ours] = [
        cookie
        for cookie in answer.headers.getlist("Set-Cookie")
        if cookie.startswith("latchkey=")
    ]
    assert ours.endswith("; HttpOnly; Path=/api; SameSite=Strict")


def test_sign_out_is_offered_at_the_provider_too(latchkey, provider):
    answer = latchkey.test_client().get("/login/oidc/end")
    where, _, query = answer.location.partition("?")
    assert where == f"{provider.issuer}/session/end"
    assert dict(parse_qsl(query)) == {
        "client_id": "latchkey",
        "post_logout_redirect_uri": f"{HERE}/",
    }


def test_nothing_of_the_provider_s_is_stored(latchkey, person, sql, capfd):
    browser = latchkey.test_client()
    begun = browser.get("/login/oidc")
    callback = person("dora").go_through(begun.location)
    browser.get(callback)
    code = dict(parse_qsl(callback.partition("?")[2]))["code"]
    tables = ("users", "sessions", "identities", "provider_sessions", "audit_events")
    stored = str([sql(f"SELECT * FROM {table}") for table in tables])
    assert "dora" in stored
    for secret in ("eyJ", code, SECRET):
        assert secret not in stored + str(capfd.readouterr())


# --- step-up --------------------------------------------------------------------------


def age(sql, **time):
    sql("UPDATE provider_sessions SET auth_time = :then", then=ago(**time))


def create(browser):
    wanted = {"name": "script", "mode": "read"}
    return browser.post("/api/me/api-keys", json=wanted, headers=OURS)


def test_a_key_wants_a_recent_sign_in(latchkey, person, sql):
    browser, dora = latchkey.test_client(), person("dora")
    sign_in(browser, dora)
    age(sql, minutes=4)
    assert create(browser).status_code == 201
    age(sql, minutes=6)
    answer = create(browser)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == (
        'Bearer realm="latchkey", error="insufficient_user_authentication", '
        'max_age="300"'
    )
    assert answer.json == {
        "code": 401,
        "message": "sign in again",
        "data": {
            "type": "validation_error",
            "errors": [{"key": "step_up", "message": "max_age", "value": "300"}],
        },
    }
    begun = browser.get("/login/oidc?step_up")
    asked = dict(parse_qsl(begun.location.partition("?")[2]))
    assert (asked["max_age"], asked["prompt"]) == ("0", "login")
    browser.get(dora.go_through(begun.location))
    assert create(browser).status_code == 201


@pytest.mark.parametrize("auth_time", [None, "2000-01-01"])
def test_without_the_time_of_the_sign_in_no_key_is_made(
    latchkey, person, sql, auth_time
):
    browser = latchkey.test_client()
    sign_in(browser, person("dora"))
    sql("UPDATE provider_sessions SET auth_time = :time", time=auth_time)
    assert create(browser).status_code == 401
    assert sql("SELECT * FROM api_keys") == []
    for call in (browser.get, browser.delete):  # these want none
        assert call("/api/me/api-keys", headers=OURS).status_code == 200


def test_a_step_up_whose_prompt_was_stripped_is_none(latchkey, person, sql):
    """The provider then answers at once, and says when the person signed in there."""
    browser, dora = latchkey.test_client(), person("dora")
    sign_in(browser, dora)
    [[first]] = sql("SELECT auth_time FROM provider_sessions")
    time.sleep(1.1)
    begun = browser.get("/login/oidc?step_up")
    stripped = re.sub("&(max_age|prompt)=[^&]+", "", begun.location)
    browser.get(dora.go_through(stripped))
    assert {row[0] for row in sql("SELECT auth_time FROM provider_sessions")} == {first}
    browser.get(dora.go_through(begun.location.replace("step_up", "")))


def test_a_session_by_password_is_no_recent_sign_in(latchkey, person, sql):
    """Somebody whose password was taken away meanwhile."""
    command = ["users", "add", "erin", "--password-stdin"]
    latchkey.test_cli_runner().invoke(args=command, input=f"{PASSWORD}\n")
    erin = OwnerOfPassword(latchkey, "erin")
    sql("UPDATE users SET password_hash = NULL WHERE username = 'erin'")
    wanted = {"name": "script", "mode": "read"}
    answer = erin.call("POST", "/api/me/api-keys", json=wanted)
    assert answer.status_code == 401
    assert answer.json["data"]["errors"][0]["key"] == "step_up"


def test_who_has_a_password_gives_it(latchkey, provider, person):
    run = latchkey.test_cli_runner().invoke
    run(args=["users", "link", "charlie", provider.issuer, "dora"])
    browser = latchkey.test_client()
    sign_in(browser, person("dora"))
    assert create(browser).json["data"]["errors"] == [
        {"key": "password", "message": "required", "value": ""}
    ]


def test_the_limit_of_keys_holds_without_passwords(latchkey, person):
    """Two requests at once do not make six: each locks the user's row."""
    browsers = [latchkey.test_client() for _ in range(2)]
    for browser in browsers:
        sign_in(browser, person("dora"))
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda n: create(browsers[n % 2]), range(12)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] * 5 + [409] * 7


# --- settings -------------------------------------------------------------------------


def test_off_by_default(app):
    browser = app.test_client()
    assert browser.get("/login/oidc").status_code == 404
    assert b"/oidc" not in browser.get("/").data
    assert b"Sign in with" not in browser.get("/").data


@pytest.mark.parametrize("name", list(settings("x"))[:3])
def test_two_of_three_settings_stop_the_start(name):
    some = settings("https://id.example")
    del some[name]
    with pytest.raises(SystemExit, match=f"^latchkey: {name} is missing: "):
        create_app(some)


@pytest.mark.parametrize(
    "issuer",
    [
        "http://id.example",
        "ftp://localhost",
        "id.example",
        "http://localhost.example",
        "http://localhost@id.example/",
        "https://id.example/?a",
        "https://id.example/#a",
    ],
)
def test_the_issuer_is_an_https_url(issuer):
    with pytest.raises(SystemExit, match="^latchkey: LATCHKEY_OIDC_ISSUER must be "):
        create_app(settings(issuer))


@pytest.mark.parametrize("name", ["LATCHKEY_PASSWORD_LOGIN", "LATCHKEY_OIDC_SIGN_UP"])
def test_a_switch_is_on_or_off(name):
    with pytest.raises(SystemExit, match=f"^latchkey: {name} must be on or off$"):
        create_app({name: "no"})


def test_password_log_in_can_be_off(make, provider, person, alice):
    latchkey = make(provider.issuer, LATCHKEY_PASSWORD_LOGIN="off")
    browser = latchkey.test_client()
    body = {"username": "alice", "password": PASSWORD}
    assert browser.post("/api/auth/login", json=body).status_code == 403
    assert browser.post("/api/session", json=body, headers=OURS).status_code == 403
    mine = {"Authorization": f"Bearer {alice.token}"}
    assert browser.get("/api/me", headers=mine).status_code == 200  # goes on
    sign_in(browser, person("dora"))
    assert who(browser) == "dora"


def test_nobody_locks_himself_out(database_url, app):
    """Without a provider, passwords stay."""
    environ = {"DATABASE_URL": database_url, "LATCHKEY_PASSWORD_LOGIN": "off"}
    made = create_app(environ)
    assert log_in(made.test_client(), "alice").status_code == 200
    assert b'method="post" action="/api/session" novalidate >' in (
        made.test_client().get("/").data
    )
    disconnect(made)


# --- the provider changes, or is down -------------------------------------------------


def test_the_provider_rotates_its_keys(request, make, person, tmp_path):
    provider = Provider(request.config, tmp_path).start(HERE)
    browser = make(provider.issuer).test_client()
    try:
        sign_in(browser, person("dora"))
        provider.stop()
        time.sleep(10)  # they are fetched again after that at the earliest
        provider.start(HERE)
        sign_in(browser, person("emil"))
        assert who(browser) == "emil"
    finally:
        provider.stop()


def test_while_the_provider_is_down_all_else_works(make, alice, verify):
    latchkey = make(f"http://127.0.0.1:{free_port()}")
    browser = latchkey.test_client()
    key = alice.key()["token"]
    started = time.monotonic()
    assert browser.get("/login/oidc").location == "/#provider_failed"
    assert browser.get("/login/oidc/end").location == "/#provider_failed"
    assert time.monotonic() - started < 5
    assert log_in(browser, "alice").status_code == 200
    assert verify(key).status_code == 200
