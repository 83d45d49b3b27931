"""The account page, driven in a real Chromium against a real gunicorn."""

import os
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PASSWORD
from playwright.sync_api import expect, sync_playwright
from servers import ROOT, Server, first_of, program

from extras.audit_trail import EVENTS
from models.database import db
from models.user import User

pytestmark = [
    pytest.mark.live,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]
NOWHERE = "**/api/**"
CHOICES = ("30 days", "90 days", "180 days", "365 days")
MOST_LINES = {".js": 110, ".html": 120, ".css": 200, ".py": 150}
LEFT = """() => JSON.stringify([
    document.documentElement.outerHTML, location.href, document.cookie,
    {...localStorage}, {...sessionStorage},
    [...document.all].map(element => element.value),
])"""


@pytest.fixture(scope="module")
def server(migrated_app, database_url, tmp_path_factory):
    server = Server(database_url, tmp_path_factory.mktemp("page") / "gunicorn.log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    chromium = program("chromium", "chromium")
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def tab(app, server, browser):
    """Open a tab of its own session; what breaks policy or script fails the test."""
    broken, contexts = [], []

    def open_tab(path="/", **options):
        context = browser.new_context(base_url=server.url, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on(
            "console", lambda said: "Policy" in said.text and broken.append(said.text)
        )
        page.under_way = set()
        page.on("request", lambda asked: page.under_way.add(asked))
        for over in ("requestfinished", "requestfailed"):
            page.on(over, lambda asked: page.under_way.discard(asked))
        page.goto(path)
        return page

    yield open_tab
    for context in contexts:
        context.close()
    assert broken == []


def settle(page):
    """Wait until the page asks the server nothing, and begins nothing for a while.

    ("networkidle" is no help: once reached it stays so, whatever is asked for later.)
    """
    quiet = 0
    for _ in range(200):
        page.wait_for_timeout(25)
        quiet = 0 if page.under_way else quiet + 1
        if quiet == 8:
            return
    raise AssertionError("the page asks without end")


def sign_in(page, name="alice", password=PASSWORD):
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def page(tab):
    page = tab()
    sign_in(page)
    expect(page.locator("#who")).to_have_text("alice")
    expect(page.locator(".pages span")).not_to_be_empty()
    return page


def fill_in(page, name="backup", days=None, access="Read", password=PASSWORD):
    page.locator("#new-key:visible, #empty button:visible").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.locator("#create").get_by_text(access, exact=True).click()
    if f"{days} days" in CHOICES:
        page.locator("#create").get_by_text(f"{days} days", exact=True).click()
    elif days is not None:
        page.get_by_text("Other", exact=True).click()
        page.get_by_label("Days until it expires").fill(days)
    page.get_by_label("Your password").fill(password)
    page.locator("#create .primary").click()


def shown_token(page):
    secret = page.locator("#token [data-slot=secret]")
    expect(secret).to_have_text(re.compile("^lk_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$"))
    return secret.inner_text()


def create(page, name="backup", **wanted):
    fill_in(page, name, **wanted)
    token = shown_token(page)
    page.get_by_role("button", name="I have stored it").click()
    expect(row(page, name)).to_be_visible()
    return token


def row(page, name):
    return page.locator("#active tr[data-id]").filter(has_text=name)


def revoke(page, name):
    page.get_by_role("button", name=f"Revoke {name}").click()
    page.locator("#revoke .solid").click()


def verify(server, token):
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{server.url}/verify", headers=headers).status_code


def test_a_key_from_its_creation_to_its_end(page, server):
    expect(page.locator("#empty")).to_contain_text(
        "A key lets one script, job or device in as you"
    )
    fill_in(page, "nightly backup", access="Read and write")
    token, (secret, curl) = (
        shown_token(page),
        page.locator("#token code[data-slot]").all(),
    )
    expect(page.locator("#token")).to_contain_text("It will not be shown again.")
    secret.click()  # once
    assert page.evaluate("getSelection().toString()") == token
    page.get_by_role("button", name="Copy key").click()
    expect(page.locator("#token [role=status]")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == token
    line = f"curl -i -H 'Authorization: Bearer {token}' {server.url}/verify"
    expect(curl).to_have_text(line)
    page.get_by_role("button", name="Copy line").click()
    assert page.evaluate("navigator.clipboard.readText()") == line
    page.get_by_role("button", name="I have stored it").click()
    assert verify(server, token) == 200

    expect(row(page, "nightly backup")).to_contain_text(f"{token[:15]}…")
    for text in ("Read and write", "Never", "active"):
        expect(row(page, "nightly backup")).to_contain_text(text)
    page.get_by_role("button", name="Revoke nightly backup").click()
    for text in (
        "nightly backup",
        "Last used just now from 127.0.0.1",
        "This can't be undone",
    ):
        expect(page.locator("#revoke")).to_contain_text(text)
    assert verify(server, token) == 200
    page.locator("#revoke .solid").click()
    expect(row(page, "nightly backup")).to_contain_text("revoked just now")
    assert verify(server, token) == 401
    expect(page.locator("#done")).to_contain_text("“nightly backup”")

    page.reload()
    expect(page.locator("#empty")).to_be_visible()
    page.get_by_text("Revoked and expired (1)").click()
    expect(page.locator("#ended")).to_contain_text("revoked just now")
    expect(page.locator("#ended tbody button")).to_have_count(0)
    for text in ("used after it was revoked · GET /verify", "Revoked", "Key created"):
        expect(page.locator("#audit")).to_contain_text(text)


def test_the_token_is_nowhere_once_the_dialog_is_closed(page):
    sent = []
    page.on(
        "request", lambda request: sent.append(request.url + (request.post_data or ""))
    )
    token = create(page)
    left = page.evaluate(LEFT)
    secret = token.rpartition("_")[2]
    assert secret not in left and PASSWORD not in left and "lks_" not in left
    assert not any(secret in request for request in sent)


def test_escape_does_not_lose_the_token_and_leaving_does_not_keep_it(page):
    fill_in(page)
    token = shown_token(page)
    page.keyboard.press("Escape")
    expect(page.locator("#token [data-slot=secret]")).to_have_text(token)
    page.goto("/static/account/icon.svg")
    page.go_back()
    expect(row(page, "backup")).to_be_visible()
    assert token not in page.content()


def test_every_key_is_revoked_on_the_night_of_the_leak(page, server):
    tokens = [create(page, name) for name in ("one", "two", "three")]
    page.get_by_role("button", name="Revoke all").click()
    for name in ("one", "two", "three"):
        expect(page.locator("#revoke li").filter(has_text=name)).to_contain_text(
            "Never used"
        )
    page.locator("#revoke .cancel").click()
    assert [verify(server, token) for token in tokens] == [200] * 3
    page.get_by_role("button", name="Revoke all").click()
    page.locator("#revoke .solid").click()
    expect(page.locator("#active").get_by_text("revoked just now")).to_have_count(3)
    assert [verify(server, token) for token in tokens] == [401] * 3
    expect(page.get_by_role("button", name="Revoke all")).to_be_hidden()
    expect(page.locator("#count")).to_have_text("0 of 5 active keys")


def test_a_hasty_second_thought_revokes_no_more_than_it_names(page, server):
    tokens = [create(page, name) for name in ("kept", "killed")]
    page.evaluate("""() => {  // all before the browser tells that the dialog was closed
        const button = document.querySelector("[aria-label='Revoke killed']");
        button.click();
        document.querySelector("#revoke .cancel").click();
        button.click();
    }""")
    page.locator("#revoke .solid").click()
    expect(row(page, "killed")).to_contain_text("revoked just now")
    assert [verify(server, token) for token in tokens] == [200, 401]


def test_a_wrong_password_is_said_and_lets_nobody_in(tab):
    page = tab()
    sign_in(page, password="wrong")
    expect(page.locator("#sign-in [role=alert]")).to_have_text(
        "User name or password is wrong."
    )
    sign_in(page, name="", password="")
    expect(page.locator("#sign-in-username-error")).to_have_text("Please fill this in.")
    expect(page.get_by_label("User name")).to_be_focused()
    for _ in range(10):
        sign_in(page, password="wrong")
        expect(page.locator("form[aria-busy]")).to_have_count(0)
    expect(page.locator("#sign-in [role=alert]")).to_contain_text(
        "Try again in 15 min."
    )
    assert "latchkey" not in str(page.context.cookies())


def test_what_is_wrong_with_a_new_key_is_said_beside_its_field(page):
    fill_in(page, name=" ", days="366", password="")
    expect(page.locator("#create-name-error")).to_have_text("Please fill this in.")
    expect(page.locator("#days-error")).to_have_text("Choose 1 to 365 days.")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.get_by_label("Name", exact=True).fill("x" * 101)
    page.get_by_label("Days until it expires").fill("")
    page.get_by_label("Your password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#create-name-error")).to_have_text("This is too long.")
    expect(page.locator("#days-error")).to_have_text("Please fill this in.")
    page.get_by_label("Name", exact=True).fill("good")
    page.get_by_label("Days until it expires").fill("3")
    page.keyboard.press("Enter")
    expect(page.locator("#create-password-error")).to_have_text(
        "This is not your password."
    )
    expect(page.locator("#create .error:not(:empty)")).to_have_count(1)
    page.get_by_label("Your password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="I have stored it").click()
    expect(row(page, "good").locator(".soon")).to_have_text("in 3 days")


def test_every_choice_of_days_is_what_the_key_gets(page, server, sql):
    expect(page.locator("#create .choices").nth(1).locator("label")).to_have_text(
        [*CHOICES, "Other"]
    )
    for days in (30, 90, 180, 365, 7):  # the last is one's own
        create(page, f"for {days} days", days=str(days))
        ends = datetime.now(UTC) + timedelta(days=days)
        expect(row(page, f"for {days} days")).to_contain_text(f"{ends:%-d %b %Y}")
    life = "round(julianday(expires_at) - julianday(created_at), 3)"
    lives = f"SELECT name, {life} FROM api_keys"
    assert dict(sql(lives)) == {
        f"for {days} days": days for days in (30, 90, 180, 365, 7)
    }


def test_the_limit_is_said_before_one_runs_into_it(page, tab):
    other = tab()
    sign_in(other)
    for number in range(5):
        expect(page.locator("#count")).to_have_text(f"{number} of 5 active keys")
        create(page, f"number {number}")
    expect(page.locator("#full")).to_contain_text("revoke one to make room for another")
    expect(page.locator("#new-key")).to_be_disabled()
    fill_in(other, "one too many")
    expect(other.locator("#create [role=alert]")).to_have_text(
        "All 5 active keys are in use. Revoke one to make room."
    )
    revoke(page, "number 3")
    expect(page.locator("#new-key")).to_be_enabled()


GONE = {
    "deleted": "DELETE FROM sessions",
    "expired": "UPDATE sessions SET expires_at = datetime('now', '-1 second')",
}


@pytest.mark.parametrize("end", GONE.values(), ids=GONE)
def test_a_lost_session_says_what_was_not_done(page, server, sql, end):
    token = create(page)
    page.get_by_role("button", name="Revoke backup").click()
    expect(page.locator("#revoke")).to_contain_text("Never used")
    settle(page)
    sql(end)
    page.locator("#revoke .solid").click()
    expect(page.locator("#why")).to_have_text(
        "Your session ended before “backup” got revoked. Please sign in again."
    )
    assert verify(server, token) == 200
    expect(page.get_by_label("User name")).to_have_value("alice")
    expect(page.get_by_label("Password", exact=True)).to_be_focused()
    sign_in(page)
    revoke(page, "backup")
    expect(row(page, "backup")).to_contain_text("revoked just now")
    assert verify(server, token) == 401
    sql(end)
    page.reload()
    expect(page.locator("#why")).to_have_text(
        "Your session ended. Please sign in again."
    )


def test_signing_out_ends_the_session_everywhere(page, tab, server, sql):
    cookie = page.context.cookies(f"{server.url}/api")[0]
    assert (
        cookie["httpOnly"]
        and cookie["sameSite"] == "Strict"
        and cookie["path"] == "/api"
    )
    create(page, "secret name")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#why")).to_have_text("You are signed out.")
    assert "secret name" not in page.content()
    assert page.context.cookies(f"{server.url}/api") == []
    assert sql("SELECT count(*) FROM sessions") == [(0,)]
    page.reload()
    expect(page.get_by_label("User name")).to_be_focused()
    expect(page.locator("#why")).to_be_empty()


@pytest.mark.parametrize(
    "status, said", [(0, "No answer came"), (500, "The server failed (500).")]
)
def test_what_is_not_known_is_not_claimed(page, server, status, said):
    def fail(route):
        fulfil = {"status": status, "json": {"code": 500, "message": "", "data": {}}}
        _ = route.fulfill(**fulfil) if status else route.abort()

    token = create(page)
    settle(page)
    page.context.route(NOWHERE, fail)
    fill_in(page, "another")
    expect(page.locator("#create [role=alert]")).to_contain_text(said)
    expect(page.locator("#create [role=alert]")).to_contain_text(
        "It is not known whether the key was created. Look at the list"
    )
    page.locator("#create .cancel").click()
    expect(page.locator("#notice")).to_contain_text(f"{said}")
    expect(page.locator("#notice")).to_contain_text(
        "not known whether the key was created."
    )
    revoke(page, "backup")
    expect(page.locator("#revoke [role=alert]")).to_contain_text(
        "whether “backup” got revoked."
    )
    page.locator("#revoke .cancel").click()  # the list cannot be had either
    expect(page.locator("#notice")).to_contain_text("whether “backup” got revoked.")
    revoke(page, "backup")
    expect(page.locator("#revoke [role=alert]")).to_contain_text(
        "whether “backup” got revoked."
    )
    page.context.unroute(NOWHERE)
    page.locator("#revoke .solid").click()  # again: nothing stands in the way
    expect(row(page, "backup")).to_contain_text("revoked just now")
    expect(page.locator("#notice")).to_be_hidden()
    assert verify(server, token) == 401


HASTY = """const real = AbortSignal.timeout;
AbortSignal.timeout = (ms) => real.call(AbortSignal, ms / 15);"""


def test_a_server_that_hangs_does_not_stand_in_the_way_of_the_next_key(page, server):
    """The page waits fifteen seconds; one, in this test."""
    token = {name: create(page, name) for name in ("first", "second")}
    page.add_init_script(HASTY)
    page.reload()
    settle(page)
    page.context.route(re.compile(r"/api-keys/[0-9a-f-]{36}$"), lambda route: None)
    revoke(page, "first")
    expect(page.locator("#revoke .solid")).to_have_css("opacity", "0.6")
    page.locator("#revoke .cancel").click()
    expect(page.locator("#notice")).to_contain_text("whether “first” got revoked.")
    page.context.unroute_all()
    revoke(page, "second")
    expect(row(page, "second")).to_contain_text("revoked just now")
    assert [verify(server, token[name]) for name in ("first", "second")] == [200, 401]


def test_a_server_that_is_away_has_not_ended_the_session(page):
    page.context.route(NOWHERE, lambda route: route.abort())
    page.reload()
    expect(page.locator("#sign-in [role=alert]")).to_contain_text(
        "No answer came from the server."
    )
    expect(page.locator("#why")).to_be_empty()
    page.context.unroute(NOWHERE)
    page.reload()
    expect(page.locator("#who")).to_have_text("alice")


def test_a_busy_server_is_said_to_have_changed_nothing(page, server):
    token, busy = (
        create(page),
        {"code": 503, "message": "service unavailable", "data": {}},
    )
    settle(page)
    page.context.route(NOWHERE, lambda route: route.fulfill(status=503, json=busy))
    revoke(page, "backup")
    told = page.locator("#revoke [role=alert]")
    expect(told).to_have_text(
        "The server is busy, and nothing was changed. Please try again."
    )
    assert verify(server, token) == 200


def test_a_name_is_text_whatever_it_holds(page):
    name = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>{{ 7*7 }}"
    create(page, name)
    expect(row(page, "onerror").locator("bdi")).to_have_text(name)
    row(page, "onerror").get_by_role("button").click()
    expect(page.locator("#revoke h2")).to_have_text(f"Revoke “{name}”?")
    page.locator("#revoke .solid").click()
    expect(page.locator("#audit")).to_contain_text(name)
    assert page.locator("main img, main b:not(#who), dialog img, dialog b").count() == 0
    assert page.title() == "Your keys · Latchkey"


def test_the_activity_is_filtered_and_paged(page, app, server, sql):
    for _ in range(9):
        sql(
            "INSERT INTO audit_events (created_at, event, user_id, ip, method, path) "
            "SELECT '2025-01-01', 'login_failed', id, '192.0.2.1', 'POST', "
            "'/api/auth/login' FROM users WHERE username = 'alice'"
        )
    for name in ("first", "second"):
        create(page, name)
        revoke(page, name)
        expect(row(page, name)).to_contain_text("revoked just now")
    page.reload()
    rows, place = page.locator("#audit tbody tr"), page.locator(".pages span")
    expect(place).to_have_text("Page 1 of 2")
    expect(rows.first).to_contain_text("Revoked")
    expect(rows.first).to_contain_text("second")
    page.get_by_role("button", name="Older").click()
    expect(place).to_have_text("Page 2 of 2")
    expect(rows).to_have_count(4)  # she signed in first
    expect(rows.first).to_contain_text("Wrong password")
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_label("Event").select_option("Key created")
    expect(place).to_have_text("Page 1 of 1")
    expect(rows).to_have_count(2)
    page.locator("#filter [name=api_key_id]").select_option(
        index=2
    )  # newest first: the first
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("first")


def test_a_key_that_somebody_killed_by_its_token_is_told_as_that(page, server):
    token = create(page)
    httpx.post(f"{server.url}/oauth/revoke", data={"token": token}).raise_for_status()
    page.reload()
    told = page.locator("#audit tbody tr").first
    expect(told).to_contain_text("Revoked")
    expect(told).to_contain_text("by somebody who had the token")


def test_no_key_is_claimed_only_once_it_is_known(page):
    create(page)
    page.context.route("**/api-keys?*", lambda route: route.abort())
    page.reload()
    expect(page.locator("#notice")).to_contain_text("No answer came from the server.")
    expect(page.locator("#empty")).to_be_hidden()
    page.context.unroute("**/api-keys?*")
    page.get_by_role("button", name="Look again").click()
    expect(row(page, "backup")).to_be_visible()


def test_old_and_ending_keys(page, sql):
    for name in ("expired", "ending", "used"):
        create(page, name)
    change = "UPDATE api_keys SET {} WHERE name = :name"
    sql(change.format("expires_at = datetime('now', '-3 days')"), name="expired")
    sql(change.format("expires_at = datetime('now', '+5 days')"), name="ending")
    used = "last_used_at = datetime('now', '-2 hours'), last_used_ip = '2001:db8::1'"
    sql(change.format(used), name="used")
    page.reload()
    expect(row(page, "ending").locator(".soon")).to_have_text("in 5 days")
    expect(row(page, "used")).to_contain_text("2 hours ago")
    expect(row(page, "used")).to_contain_text("from 2001:db8::1")
    expect(row(page, "used").locator(".soon")).to_have_count(0)
    expect(row(page, "expired")).to_have_count(0)
    page.get_by_text("Revoked and expired (1)").click()
    expect(page.locator("#ended tbody tr")).to_contain_text("expired 3 days ago")


def test_without_an_address_the_page_names_none(page, sql):
    """On a unix socket Latchkey learns no address, unless a trusted proxy says it."""
    create(page)
    used = "last_used_at = datetime('now', '-2 hours'), last_used_ip = NULL"
    sql(f"UPDATE api_keys SET {used}")
    sql("UPDATE audit_events SET ip = NULL")
    page.reload()
    settle(page)
    cells = row(page, "backup").locator("td")
    expect(cells.nth(2)).to_have_text(re.compile(r"^2 hours ago \(.+\)$"))
    expect(page.locator("#audit tbody tr").first.locator("td").last).to_be_empty()
    page.get_by_role("button", name="Revoke backup").click()
    expect(page.locator("#revoke li small")).to_have_text("Last used 2 hours ago")
    assert "null" not in page.locator("body").inner_text()


def test_behind_http_basic_the_page_works_as_elsewhere(tab, server):
    """A browser that has logged in to a proxy sends Authorization with every call."""
    basic = {"username": "team", "password": "door", "send": "always"}
    page = tab(http_credentials=basic)
    sign_in(page)
    token = create(page)
    revoke(page, "backup")
    expect(row(page, "backup")).to_contain_text("revoked just now")
    assert verify(server, token) == 401
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#why")).to_have_text("You are signed out.")


def test_signing_out_of_a_session_that_has_ended_takes_the_cookie_away(
    page, server, sql
):
    settle(page)
    sql("DELETE FROM sessions")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#why")).to_have_text("You are signed out.")
    assert page.context.cookies(f"{server.url}/api") == []


def test_the_keyboard_is_enough(tab, server):
    page = tab()
    expect(page.get_by_label("User name")).to_be_focused()

    def press(*keys):
        for key in keys:
            page.keyboard.press(key) if len(key) < 12 and key[
                0
            ].isupper() else page.keyboard.type(key)

    press("alice", "Tab", PASSWORD, "Enter")
    expect(page.get_by_role("heading", name="API keys")).to_be_focused()
    press("Tab", "Enter")  # create your first key
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    press("typed", "Tab", "ArrowRight", "Tab", "ArrowRight", "Tab", PASSWORD, "Enter")
    expect(page.get_by_role("button", name="Copy key")).to_be_focused()
    press("Enter")
    expect(page.locator("#token [role=status]")).to_have_text("Copied.")
    token = page.evaluate("navigator.clipboard.readText()")
    press("Tab", "Tab", "Enter")
    expect(row(page, "typed")).to_contain_text("Read and write")
    expect(page.get_by_role("heading", name="API keys")).to_be_focused()
    assert verify(server, token) == 200
    press("Tab", "Tab", "Tab", "Tab", "Tab")  # past both buttons and two of sorting
    expect(page.get_by_role("button", name="Revoke typed")).to_be_focused()
    press("Enter", "Escape")
    expect(page.get_by_role("button", name="Revoke typed")).to_be_focused()
    press("Enter")
    expect(
        page.locator("#revoke .cancel")
    ).to_be_focused()  # not the one that can't be undone
    press("Tab", "Enter")
    expect(row(page, "typed")).to_contain_text("revoked just now")
    expect(row(page, "typed")).to_be_focused()
    assert verify(server, token) == 401


@pytest.mark.parametrize("scheme", first_of(["light", "dark"]))
@pytest.mark.parametrize("width", [1280, 390])
def test_nobody_is_shut_out(tab, tmp_path, scheme, width):
    """In every state: no violation of axe's rules, no scrolling sideways; a picture."""
    page = tab(color_scheme=scheme, viewport={"width": width, "height": 844})

    def check(state):
        found = Axe().run(page).response["violations"]
        told = [
            (v["id"], node["target"], node["failureSummary"])
            for v in found
            for node in v["nodes"]
        ]
        assert told == [], state
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            state
        )
        settle(page)
        full = not page.locator("dialog[open]").count()
        picture = tmp_path / f"{state}-{scheme}-{width}.png".replace(" ", "-")
        assert page.screenshot(path=picture, full_page=full)

    expect(page.locator("#sign-in")).to_be_visible()
    check("sign in")
    sign_in(page, password="wrong")
    expect(page.locator("#sign-in [role=alert]")).not_to_be_empty()
    check("wrong password")
    sign_in(page)
    expect(page.locator(".pages span")).to_have_text("Page 1 of 1")
    check("empty")
    create(page, "w" * 100)
    create(page, "ending", days="3")
    revoke(page, "ending")
    expect(page.locator("#done")).not_to_be_empty()
    create(page, "next", days="5")
    page.reload()
    page.locator("summary").click()
    page.locator("#active").get_by_role("button", name="Expires").click()
    ended = page.locator("#ended tbody code").inner_text()
    page.get_by_label("A key that you found").fill(ended)
    expect(page.locator("#which-answer")).to_contain_text("It is not active")
    expect(page.locator("#expiring")).not_to_be_empty()
    check("keys")
    page.get_by_role("button", name="Change password").click()
    fill_in_passwords(page, "", "short")
    expect(page.locator("#password .error:not(:empty)")).to_have_count(2)
    check("password")
    page.locator("#password .cancel").click()
    fill_in(page, "", days="0")
    expect(page.locator("#create .error:not(:empty)")).to_have_count(2)
    check("create")
    page.get_by_label("Name", exact=True).fill("new")
    page.get_by_label("Days until it expires").fill("3")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Copy key").click()
    check("token")
    page.get_by_role("button", name="I have stored it").click()
    page.get_by_role("button", name="Revoke all").click()
    check("revoke")
    settle(page)
    page.context.route(NOWHERE, lambda route: route.abort())
    page.locator("#revoke .solid").click()
    expect(page.locator("#revoke [role=alert]")).not_to_be_empty()
    check("lost")
    page.locator("#revoke .cancel").click()
    expect(page.locator("#notice")).to_be_visible()
    check("notice")
    page.goto("/nowhere")
    check("not found")


# --- which key is which ---------------------------------------------------------------


def test_a_time_is_exact_on_hover_and_for_screen_readers(page, sql):
    create(page)
    created = "created_at = '2026-03-03 14:05:09.000000'"
    sql(f"UPDATE api_keys SET {created}, last_used_at = datetime('now', '-2 hours')")
    page.reload()
    time = row(page, "backup").locator("time").first
    expect(time).to_have_attribute("datetime", "2026-03-03T14:05:09.000000Z")
    exact = re.compile(r"^3 Mar 2026, \d\d:05:09 ")
    expect(time).to_have_attribute("title", exact)
    expect(time).to_have_text(re.compile(r"^3 Mar 2026 \(3 Mar 2026, \d\d:05:09 .+\)$"))
    expect(time.locator("+ small")).to_have_text(re.compile(r"^[\d,]+ days ago$"))
    used = row(page, "backup").locator("td").nth(2).locator("time")
    expect(used).to_have_text(re.compile(r"^2 hours ago \(.+\d\d:\d\d:\d\d .+\)$"))
    happened = page.locator("#audit tbody time").first
    expect(happened).to_have_attribute("title", re.compile(r"\d\d:\d\d:\d\d"))
    expect(happened.locator("+ small")).to_have_text("just now")


def test_the_keys_are_sorted_by_expiry_and_by_last_use(page, sql):
    for name, days in (("lima", "30"), ("kilo", "90"), ("mike", "7")):
        create(page, name, days=days)
    used = "UPDATE api_keys SET last_used_at = datetime('now', :ago) WHERE name = :name"
    sql(used, ago="-1 day", name="kilo")
    sql(used, ago="-2 days", name="lima")
    page.reload()
    names, table = page.locator("#active tbody bdi"), page.locator("#active")
    for head, order, expected in (
        ("Expires", "none", "mike kilo lima"),  # newest first, as the server has them
        ("Expires", "ascending", "mike lima kilo"),
        ("Expires", "descending", "kilo lima mike"),
        ("Last used", "descending", "kilo lima mike"),
        ("Last used", "ascending", "mike lima kilo"),
        ("Last used", "none", "mike kilo lima"),
    ):
        button = table.get_by_role("button", name=head)
        if (head, order) != ("Expires", "none"):
            button.click()
        expect(button.locator("..")).to_have_attribute("aria-sort", order)
        expect(names).to_have_text(expected.split())
    expect(page.locator("#active [aria-sort=none]")).to_have_count(2)
    page.locator("#active").get_by_role("button", name="Expires").focus()
    page.keyboard.press("Enter")
    expect(names).to_have_text(["mike", "lima", "kilo"])
    revoke(page, "lima")  # and it stays sorted
    expect(row(page, "lima")).to_contain_text("revoked just now")
    expect(names).to_have_text(["mike", "lima", "kilo"])
    expect(page.locator("#revoke")).to_be_hidden()


MANY = """INSERT INTO api_keys
    (id, user_id, name, key_public, digest, mode, created_at, expires_at, revoked_at)
    SELECT :public, id, :name, :public, :digest, 'read', :time, :time, :time
    FROM users WHERE username = 'alice'"""


def test_an_active_key_is_in_sight_behind_more_than_a_page_of_others(page, sql):
    """And each of them can be found: the page loads them all."""
    create(page, "still active")
    for n in range(150):
        public = f"{n:012}"
        time = f"2099-01-01 00:00:{n % 60:02}.000000"
        sql(MANY, public=public, digest=bytes([n]), name=f"old {n}", time=time)
    page.reload()
    expect(row(page, "still active")).to_be_visible()
    expect(page.locator("#ended-keys summary")).to_have_text(
        "Revoked and expired (150)"
    )
    page.get_by_label("A key that you found").fill("000000000149")
    expect(page.locator("#which-answer")).to_contain_text("“old 149”")
    expect(page.locator("[data-found]")).to_be_visible()


def test_keys_that_expire_within_14_days_are_told_on_top(page, sql):
    expiring = page.locator("#expiring")
    create(page, "later", days="30")
    expect(expiring).to_be_hidden()
    create(page, "this week", days="5")
    expect(expiring).to_have_text(
        "“this week” expires in 5 days. Create a new key to take its place in time."
    )
    create(page, "next week", days="13")
    expect(expiring).to_contain_text("2 keys expire within 14 days. The first: “this")
    for name in ("this week", "next week"):
        revoke(page, name)
        expect(row(page, name)).to_contain_text("revoked just now")
    expect(expiring).to_be_hidden()
    sql("UPDATE api_keys SET expires_at = datetime('now', '+13.9 days')")
    page.reload()
    expect(expiring).to_contain_text("“later” expires in 14 days.")
    sql("UPDATE api_keys SET expires_at = datetime('now', '+14.1 days')")
    page.reload()
    expect(row(page, "later")).to_be_visible()
    expect(expiring).to_be_hidden()


def test_which_key_it_is_is_told_without_sending_anything(page, app, sql):
    tokens = {name: create(page, name) for name in ("good", "revoked", "expired")}
    revoke(page, "revoked")
    expect(row(page, "revoked")).to_contain_text("revoked just now")
    sql("UPDATE api_keys SET expires_at = datetime('now', '-3 days') "
        "WHERE name = 'expired'")  # fmt: skip
    page.reload()
    settle(page)
    sent = []
    page.context.on("request", lambda request: sent.append(request.url))
    field, answer = (
        page.get_by_label("A key that you found"),
        page.locator("#which-answer"),
    )
    found, states = (
        page.locator("[data-found] bdi"),
        {
            "good": "It is active, and expires in 90 days.",
            "revoked": "It is not active: it was revoked just now.",
            "expired": "It is not active: it expired 3 days ago.",
        },
    )
    expect(page.locator("#ended-keys")).not_to_have_attribute("open", "")
    for name, token in tokens.items():
        public = token.split("_")[1]
        for pasted in (
            token,
            f" Authorization: Bearer {token}\n",
            f"'{token}'",
            token[:20],
            f"lk_{public}…",
            f"lk_{public}",
            f"{public}...",
            public[:6],
        ):
            field.fill(pasted)
            expect(answer).to_have_text(
                f"By its beginning this is “{name}”. {states[name]}"
            )
            expect(found).to_have_text([name])
            expect(found).to_be_visible()
            assert token.rpartition("_")[2][:5] not in page.evaluate(LEFT)
    for pasted, said in {
        "lk_": "",
        "lk_abc": "",
        "lk_" + "0" * 12: "None of your keys begins like this.",
        "lks_" + "0" * 12: "This is the token of a session, not a key.",
        "nonsense!": "None of your keys begins like this.",
    }.items():
        field.fill(pasted)
        expect(answer).to_have_text(said)
        expect(found).to_have_count(0)
    field.focus()
    page.keyboard.press("Enter")
    settle(page)
    assert sent == [] and page.url.endswith("/")
    field.fill(tokens["good"])
    page.goto("/static/account/icon.svg")
    page.go_back()
    expect(field).to_have_value("")


def test_revoke_all_says_how_many(page):
    for name in ("one", "two", "three"):
        create(page, name)
    page.get_by_role("button", name="Revoke all (3)").click()
    expect(page.locator("#revoke h2")).to_have_text("Revoke all 3 active keys?")
    expect(page.locator("#revoke .solid")).to_have_text("Revoke 3 keys")
    page.locator("#revoke .cancel").click()
    revoke(page, "one")
    expect(page.get_by_role("button", name="Revoke all (2)")).to_be_visible()
    revoke(page, "two")
    page.get_by_role("button", name="Revoke all (1)").click()
    expect(page.locator("#revoke h2")).to_have_text("Revoke “three”?")
    expect(page.locator("#revoke .solid")).to_have_text("Revoke")


# --- what happened --------------------------------------------------------------------


def test_every_event_has_words(page, database_url):
    options = page.locator("#filter [name=event] option").all()
    words = {option.get_attribute("value"): option.inner_text() for option in options}
    assert words.keys() == {"", *EVENTS}
    assert all("_" not in text for text in words.values())


def test_a_sign_in_and_a_refusal_for_the_scope_are_told(page, server):
    token = create(page)
    httpx.post(
        f"{server.url}/verify?scope=write", headers={"Authorization": f"Bearer {token}"}
    )
    page.reload()
    rows = page.locator("#audit tbody tr")
    expect(rows.first).to_contain_text("Key refused")
    expect(rows.first).to_contain_text("used for what it may not do · POST /verify")
    expect(rows.last).to_contain_text("Signed in")
    expect(rows.last).to_contain_text("with the password")
    expect(rows.last).to_contain_text("127.0.0.1")


def test_the_activity_is_filtered_by_day_in_the_browser_s_time_zone(tab, sql):
    page = tab(timezone_id="America/New_York")
    sign_in(page)
    expect(page.locator("#who")).to_have_text("alice")
    settle(page)
    for time in ("2025-07-02 03:59:59", "2025-07-02 04:00:00", "2025-07-04 03:59:59"):
        sql(
            "INSERT INTO audit_events (created_at, event, user_id, ip, method, path) "
            "SELECT :time, 'created', id, '192.0.2.1', 'POST', '/' "
            "FROM users WHERE username = 'alice'",
            time=f"{time}.000000",
        )
    rows = page.locator("#audit tbody tr")
    page.get_by_label("Last day").fill("2025-07-03")
    expect(rows).to_have_count(3)
    page.get_by_label("First day").fill("2025-07-02")
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("2 Jul 2025, 00:00:00 GMT-4")
    page.get_by_label("Last day").fill("2025-07-02")
    expect(rows).to_have_count(1)
    page.get_by_label("First day").fill("2025-07-03")
    expect(page.locator(".pages span")).to_have_text("Nothing found.")
    for label in ("First day", "Last day"):
        page.get_by_label(label).fill("")
    expect(rows).to_have_count(4)


# --- the password ---------------------------------------------------------------------


def fill_in_passwords(page, current, new, repeated=None):
    page.get_by_label("Current password").fill(current)
    page.get_by_label("New password", exact=True).fill(new)
    page.get_by_label("New password again").fill(new if repeated is None else repeated)
    page.keyboard.press("Enter")


@pytest.fixture
def known_password(app):
    yield
    with app.app_context():
        User.by_name("alice").set_password(PASSWORD)
        db.session.commit()


def test_the_password_is_changed_and_other_sessions_end(
    page, tab, server, known_password
):
    token, other = create(page), tab()
    sign_in(other)
    expect(other.locator("#who")).to_have_text("alice")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_label("Current password")).to_be_focused()
    said = {
        n: page.locator(f"#password-{n}-error")
        for n in ("password", "new_password", "repeated")
    }
    fill_in_passwords(page, PASSWORD, "new password", "new passwort")
    expect(said["repeated"]).to_have_text("This is not the same as above.")
    fill_in_passwords(page, PASSWORD, "short")
    expect(said["new_password"]).to_have_text("Use at least 8 characters.")
    expect(said["repeated"]).to_be_empty()
    fill_in_passwords(page, PASSWORD, "x" * 73)
    expect(said["new_password"]).to_have_text("This is too long.")
    fill_in_passwords(page, "wrong", "new password")
    expect(said["password"]).to_have_text("This is not your password.")
    expect(page.get_by_label("Current password")).to_be_focused()
    fill_in_passwords(page, PASSWORD, "new password")
    expect(page.locator("#done")).to_contain_text("Your password is changed.")
    expect(page.locator("#password")).to_be_hidden()
    expect(page.get_by_role("heading", name="API keys")).to_be_focused()
    expect(page.locator("#audit tbody tr").first).to_contain_text("Password changed")
    left = page.evaluate(LEFT)
    assert PASSWORD not in left and "new password" not in left
    assert verify(server, token) == 200
    other.reload()
    expect(other.locator("#why")).to_contain_text("Your session ended.")
    sign_in(other)
    expect(other.locator("#sign-in [role=alert]")).to_contain_text("password is wrong")
    sign_in(other, password="new password")
    expect(other.locator("#who")).to_have_text("alice")
    page.reload()
    expect(page.locator("#who")).to_have_text("alice")


WITHOUT = """
import extras.password
extras.password.register = lambda app: None
from app import create_app
app = create_app()
"""


def test_without_the_extra_the_page_offers_no_change(
    tab, server, database_url, tmp_path
):
    (tmp_path / "without_password.py").write_text(WITHOUT)
    other = Server(
        database_url,
        tmp_path / "log",
        application="without_password:app",
        PYTHONPATH=str(tmp_path),
    )
    page = tab(other.url)
    sign_in(page)
    create(page)
    assert "assword" not in page.locator("header").inner_text()
    assert page.locator("#change-password, #password").count() == 0
    other.stop()


# --- elsewhere ------------------------------------------------------------------------


def test_an_address_without_a_page_has_a_way_back(tab):
    page = tab("/keys/of/mine")
    expect(page.get_by_role("heading")).to_have_text("Page not found")
    page.get_by_role("link", name="Go to your keys").click()
    expect(page.locator("#sign-in")).to_be_visible()
    page.goto("/docs/nothing")
    page.get_by_role("link", name="read the docs").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("API reference")


def test_the_page_is_small(database_url):
    files = (ROOT / "extras/account_page").rglob("*.*")
    kinds = [file for file in files if file.suffix in MOST_LINES]
    lines = {file: file.read_text().count("\n") for file in kinds}
    assert len(lines) > 15
    assert {f: n for f, n in lines.items() if n > MOST_LINES[f.suffix]} == {}


@pytest.fixture
def other_server(tmp_path):
    (tmp_path / "index.html").write_text("<p>Have a nice day!")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        Thread(target=other.serve_forever).start()
        yield other
        other.shutdown()


def test_a_page_of_another_origin_changes_nothing(page, server, other_server, sql):
    """On another port the browser does send the cookie: SameSite is about sites."""
    create(page)
    settle(page)
    evil = page.context.new_page()
    evil.goto(f"http://127.0.0.1:{other_server.server_port}/")
    answers = []
    evil.on(
        "response",
        lambda answer: answers.append((answer.request.method, answer.status)),
    )
    send = """([url, method]) =>
        fetch(url, {method, mode: 'no-cors', credentials: 'include'})"""
    for path in ("/auth/logout", "/me/api-keys", "/session"):
        evil.evaluate(send, [f"{server.url}/api{path}", "POST"])
    for path in ("/me/api-keys", "/session"):
        with pytest.raises(Exception, match="Failed to fetch"):
            evil.evaluate(
                send.replace("no-cors", "cors"), [f"{server.url}/api{path}", "DELETE"]
            )
    evil.set_content(
        f"<form method=post action='{server.url}/api/auth/logout'><button>Go</button>"
    )
    evil.get_by_role("button").click()
    evil.wait_for_url("**/logout")
    assert answers.count(("POST", 403)) >= 3
    assert not any(status < 300 for method, status in answers if method != "OPTIONS")
    assert sql("SELECT count(*) FROM sessions") == [(1,)]
    assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(1,)]
    page.reload()
    expect(row(page, "backup")).to_be_visible()
