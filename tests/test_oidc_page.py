"""The account page with a certified identity provider, in a real Chromium."""

import os
import time

import httpx
import pytest
from conftest import PASSWORD, ago
from oidc import Person, Provider, settings
from playwright.sync_api import expect, sync_playwright
from servers import free_port, program

pytestmark = pytest.mark.live
sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def provider(request, tmp_path):
    provider = Provider(request.config, tmp_path)
    yield provider
    provider.stop()


@pytest.fixture
def latchkey(app, sql, serve, provider):
    """Latchkey in two workers, and the provider that serves it."""
    sql("DELETE FROM identities")

    def start(**more):
        more = {"LATCHKEY_OIDC_NAME": "Example ID", **more}
        server = serve(**settings(provider.issuer, **more))
        provider.start(server.url)
        return server

    return start


@pytest.fixture
def tab():
    """Open a tab of a browser of its own."""
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    chromium = program("chromium", "chromium")
    broken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)

        def open_tab(server):
            page = browser.new_context(base_url=server.url).new_page()
            page.set_default_timeout(10000)
            page.on("pageerror", lambda error: broken.append(str(error)))
            page.on(
                "console",
                lambda said: (
                    "Security Policy" in said.text and broken.append(said.text)
                ),
            )
            page.goto("/")
            return page

        yield open_tab
        browser.close()
    assert broken == []


def sign_in(page, name="dora"):
    page.get_by_role("button", name="Sign in with Example ID").click()
    prove(page, name)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#who")).to_have_text(name)


def prove(page, name="dora"):
    """Fill in the provider's form."""
    page.locator("[name=login]").fill(name)
    page.locator("[name=password]").fill("any")
    page.get_by_role("button", name="Sign-in").click()


def fill_in(page):
    page.locator("#new-key:visible, #empty button:visible").click()
    expect(page.get_by_label("Your password")).to_be_hidden()
    page.get_by_label("Name", exact=True).fill("backup")
    page.locator("#create").get_by_text("Read and write", exact=True).click()
    page.get_by_text("Other", exact=True).click()
    page.get_by_label("Days until it expires").fill("7")
    page.locator("#create .primary").click()


@sqlite
def test_from_the_first_sign_in_to_a_key_and_out(latchkey, tab, sql):
    page = tab(latchkey())
    sign_in(page)
    assert page.url.endswith("/")
    expect(page.get_by_role("button", name="Change password")).to_be_hidden()
    fill_in(page)
    expect(page.locator("#token")).to_be_visible()
    page.get_by_role("button", name="I have stored it").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#why")).to_have_text("You are signed out.")
    assert sql("SELECT * FROM sessions") == []
    page.get_by_role("link", name="Sign out there too").click()
    page.get_by_role("button", name="Yes, sign me out").click()
    expect(page.get_by_role("button", name="Sign in with Example ID")).to_be_visible()
    expect(page.get_by_role("link", name="Sign out there too")).to_be_hidden()
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.locator("[name=login]")).to_be_visible()  # asks again


@sqlite
def test_a_step_up_comes_back_to_the_filled_form(latchkey, tab, sql):
    page = tab(latchkey())
    sign_in(page)
    sql("UPDATE provider_sessions SET auth_time = :then", then=ago(minutes=6))
    fill_in(page)
    prove(page)
    expect(page.get_by_label("Name", exact=True)).to_have_value("backup")
    expect(page.get_by_label("Days until it expires")).to_have_value("7")
    assert sql("SELECT * FROM api_keys") == []
    page.locator("#create .primary").click()
    expect(page.locator("#token")).to_be_visible()
    assert sql("SELECT name, mode FROM api_keys") == [("backup", "write")]


@sqlite
def test_a_step_up_as_somebody_else_fills_in_nothing(latchkey, tab, sql):
    page = tab(latchkey())
    sign_in(page)
    sql("UPDATE provider_sessions SET auth_time = :then", then=ago(minutes=6))
    fill_in(page)
    prove(page, "emil")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#who")).to_have_text("emil")
    expect(page.locator("#create")).to_be_hidden()
    assert sql("SELECT * FROM api_keys") == []


@sqlite
def test_a_step_up_that_is_given_up_is_told_in_the_form(latchkey, tab, sql):
    page = tab(latchkey())
    sign_in(page)
    sql("UPDATE provider_sessions SET auth_time = :then", then=ago(minutes=6))
    fill_in(page)
    page.get_by_role("link", name="Cancel").click()
    alert = page.locator("#create [role=alert]")
    expect(alert).to_have_text("Example ID did not sign you in.")
    expect(page.get_by_label("Name", exact=True)).to_have_value("backup")


@sqlite
def test_with_passwords_off_there_is_no_form_for_one(latchkey, tab):
    page = tab(latchkey(LATCHKEY_PASSWORD_LOGIN="off"))
    expect(page.get_by_role("button", name="Sign in with Example ID")).to_be_visible()
    expect(page.get_by_label("Password", exact=True)).to_be_hidden()


@sqlite
def test_who_has_a_password_is_asked_for_it(latchkey, tab):
    page = tab(latchkey())
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.locator("#who")).to_have_text("alice")
    page.locator("#new-key:visible, #empty button:visible").click()
    expect(page.get_by_label("Your password")).to_be_visible()


@sqlite
def test_the_page_says_that_the_provider_is_down(app, serve, tab):
    """The password still works."""
    issuer = f"http://127.0.0.1:{free_port()}"
    page = tab(serve(**settings(issuer, LATCHKEY_OIDC_NAME="Example ID")))
    started = time.monotonic()
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.locator("#why")).to_contain_text("Example ID did not answer")
    assert time.monotonic() - started < 5
    assert page.url.endswith("/")


def test_a_log_out_at_the_provider_ends_the_session_on_every_worker(
    latchkey, serve, provider
):
    """Within the second, on another host too."""
    server = latchkey()
    other = serve(**settings(provider.issuer))
    person = Person("dora")
    with httpx.Client(base_url=server.url) as browser:
        begun = browser.get("/login/oidc")
        browser.get(person.go_through(begun.headers["Location"]))
        cookies = {"latchkey": browser.cookies["latchkey"]}

    def statuses():
        return {
            httpx.get(f"{each.url}/api/me", cookies=cookies).status_code
            for each in (server, other)
            for _ in range(8)  # of both workers
        }

    assert statuses() == {200}
    form = person.http.get(f"{provider.issuer}/session/end")
    person.submit(form)
    deadline = time.monotonic() + 1
    while statuses() != {401}:
        assert time.monotonic() < deadline
    person.http.close()
