"""Signing in with a certified identity provider."""

import re

import pytest
from oidc import Person, Provider, settings
from servers import disconnect

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
def make(app, database_url):
    """Latchkey with this provider, over the test's database."""
    made = []

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


def trail(sql, *events):
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
