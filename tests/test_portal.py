"""The documentation that people read: what it says, how it looks, who can read it."""

import json
import re

import pytest
from servers import Server, program

from app import create_app

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

REFERENCE = """
DELETE /api/me/api-keys/{id} | Revoke an API key
Revoke one of the current user's API keys. Revocation is immediate. A user can only \
revoke their own keys. Interactive-session only — cannot be called with an API key.
Path parameters | id string Required | API key ID | Responses
200 API key revoked successfully application/json | Hide response attributes object
code integer | message string | data object | null
401 Unauthorized - invalid or missing token application/json
403 Forbidden - insufficient permissions application/json
404 Resource not found application/json | HTTP error code | Error message
data object | Hide data attributes object | type string | Type of error
Values are validation_error or external_api_error. | errors array[object]
Hide errors attributes object | key string | Field name that failed validation
message string | Error code or message | value string | Value that failed validation
details | Additional error details | 500 Internal server error application/json
curl \\ | --request DELETE | /api/me/api-keys/f47ac10b-58cc-4372-a567-0e02b2c3d479'
--header "Authorization: Bearer $ACCESS_TOKEN"
Response example (200) | "message": "api key revoked successfully", "data": {}
Response example (401) | "message": "invalid token", "data": {}
Response example (403) | "message": "insufficient permissions", "data": {}
Response example (404) | "code": 404 | "type": "validation_error", "errors": [ { "key":
Response example (500) | "message": "internal server error", "data": {}
Add the MCP server to your AI tool | MCP server URL | http://localhost/mcp
Allow AI tools and LLMs to interact with the API documentation portal through MCP
Standard setup for AI tools providing an mcp.json file
{ "localhost MCP server": { "url": "http://localhost/mcp",
"""


@pytest.fixture
def get(app):
    return app.test_client().get


@pytest.fixture
def names(get):
    api = get("/openapi.json").json
    return [
        made["operationId"] for item in api["paths"].values() for made in item.values()
    ]


def text_of(page):
    """What a reader sees; of Show and Hide, the one that an open part shows."""
    page = re.sub(
        r"<head>.*?</head>|<span class=.(show|unseen).>.*?</span>", "", page, flags=re.S
    )
    page = re.sub(r"<[^>]+>", "", page).replace("&#39;", "'").replace("&#34;", '"')
    return " ".join(page.split())


def test_the_page_says_all_that_the_reference_page_says(get):
    said = text_of(get("/docs/revoke-key").text)
    for line in REFERENCE.strip().splitlines():
        for part in line.split(" | "):
            assert part in said, part


def test_every_operation_has_a_page_and_its_markdown_and_is_listed(get, names):
    front, listed = get("/docs").text, get("/llms.txt")
    assert listed.content_type == "text/plain; charset=utf-8"
    for name in names:
        page, markdown = get(f"/docs/{name}"), get(f"/docs/{name}.md")
        assert page.content_type == "text/html; charset=utf-8"
        assert markdown.content_type == "text/markdown; charset=utf-8"
        assert f"/docs/{name}.md" in listed.text and f'"/docs/{name}"' in front
        assert "curl" in page.text
        # /verify is not Flask's: whatever fails there is a 503 without a body.
        assert ("### 500 application/json" in markdown.text) == (name != "verify")
    for unknown in ("nothing", "nothing.md", "index", "llms.txt", "revoke-key.html"):
        assert get(f"/docs/{unknown}").status_code == 404


def test_the_markdown_says_what_the_page_says(get):
    said = get("/docs/revoke-key.md").text
    assert said.startswith(
        "# DELETE /api/me/api-keys/{id}\n\nRevoke an API key. Revoke one of the"
    )
    assert "- `id` string, required: API key ID.\n" in said
    assert "    - `key` string: Field name that failed validation.\n" in said
    assert said.count("Response example (") == 6
    assert "&#" not in said


def test_a_body_shows_what_is_sent_and_an_answer_what_comes_back(get):
    sent, answered = get("/docs/create-key.md").text.split("## Responses")
    assert "- `password` string, required: " in sent and "`key_public`" not in sent
    days = "- `expires_in_days` integer | null: Days until the key stops working."
    assert f"{days} From 1 to 365. Default: `90`." in sent
    assert "`password`" not in answered and "`key_public`" in answered


def test_the_public_url_is_the_one_shown(app, get, monkeypatch):
    monkeypatch.setitem(app.config, "LATCHKEY_PUBLIC_URL", "https://keys.example.org")
    for path in ("/docs/me", "/docs/me.md", "/llms.txt", "/docs"):
        assert "https://keys.example.org" in get(path).text
        assert "http://localhost" not in get(path).text


@pytest.mark.parametrize("path", ["/docs", "/docs/revoke-key", "/static/docs/docs.css"])
def test_a_page_runs_nothing_but_our_own_files(get, path):
    with get(path) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert policy == (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self'"
    )
    if path.startswith("/docs"):
        page = get(path).text
        assert not re.search(r"<style|<script(?![^>]*src=)|\sstyle=|\son\w+=", page)
        sources = re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="(.*?)"', page)
        assert sources and all(source.startswith("/static/") for source in sources)


def test_a_page_weighs_less_than_50_kb_in_all(get, names):
    def weight(path):
        with get(path) as answer:
            return len(answer.data)

    for path in ["/docs", *(f"/docs/{name}" for name in names)]:
        parts = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', get(path).text))
        assert len(parts) == 3
        assert weight(path) + sum(map(weight, parts)) < 50_000


def test_pages_are_rendered_once_and_no_request_leaves_a_trace_in_them(app, get):
    """The first request of a process may come from anywhere."""
    app.extensions.pop("docs", None)
    evil = {"base_url": "https://evil.example/prefix", "headers": {"X-Evil": "evil"}}
    assert "https://evil.example/openapi.json" in get("/llms.txt", **evil).text
    rendered = app.extensions["docs"]
    for path in ("/docs", "/docs/me", "/docs/me.md", "/llms.txt", "/openapi.json"):
        text = get(path).text
        assert "evil" not in text and "prefix" not in text and "invalid/" not in text
    assert app.extensions["docs"] is rendered


@pytest.mark.parametrize("missing", ["account_page", "mcp"])
def test_nothing_points_to_an_extra_that_is_not_there(
    missing, database_url, monkeypatch
):
    monkeypatch.setattr(f"extras.{missing}.register", lambda app: None)
    http = create_app({"DATABASE_URL": database_url}).test_client()
    for path in ("/docs", "/docs/me"):
        page = http.get(path).text
        links = set(re.findall(r'<a [^>]*href="([^#"]+)', page))
        assert ("/" in links) == (missing != "account_page")
        assert ("/mcp" in page) == (missing != "mcp")
        for link in links:
            assert http.get(link).status_code == 200, link
    assert ("/mcp" in http.get("/llms.txt").text) == (missing != "mcp")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    where = program("chromium", "chromium")
    with sync_playwright() as play:
        yield play.chromium.launch(executable_path=where, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def url(migrated_app, database_url, tmp_path_factory):
    server = Server(
        database_url, tmp_path_factory.mktemp("portal") / "log", WEB_CONCURRENCY="1"
    )
    yield server.url
    server.stop()


@ONE_DATABASE
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_everybody_can_read_it(url, browser, scheme, width):
    """No violation of axe's rules, nothing to scroll sideways, an empty console."""
    from axe_playwright_python.sync_playwright import Axe

    complaints = []
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme
    )
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    for path in ("/docs", "/docs/revoke-key", "/docs/create-key", "/docs/verify"):
        page.goto(url + path)
        page.evaluate(
            "document.querySelectorAll('details').forEach(each => each.open = true)"
        )
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        page.get_by_role("button", name="Operations").click()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    assert complaints == []
    context.close()


@ONE_DATABASE
def test_one_click_copies_and_without_javascript_it_reads_the_same(url, browser):
    from playwright.sync_api import expect

    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{url}/docs")
    page.click("button.copier[data-of=mcp-json]")
    expect(page.locator("#copied")).to_have_text("Copied")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    host = url.removeprefix("http://")
    assert copied == {f"{host} MCP server": {"url": f"{url}/mcp", "type": "http"}}
    context.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{url}/docs/revoke-key")
    assert page.locator(".copier:visible").count() == 0
    page.locator("summary", has_text="Add the MCP server").click()
    assert page.locator("#mcp-url").is_visible()
    context.close()


@ONE_DATABASE
@pytest.mark.parametrize("javascript", [True, False])
def test_on_a_phone_the_operations_are_behind_a_button(url, browser, javascript):
    from playwright.sync_api import expect

    context = browser.new_context(
        viewport={"width": 390, "height": 844}, java_script_enabled=javascript
    )
    page = context.new_page()
    page.goto(f"{url}/docs/create-key")
    operations = page.get_by_role("navigation", name="Operations")
    button = page.get_by_role("button", name="Operations")
    expect(operations).to_be_hidden()
    button.press("Enter")
    expect(operations).to_be_visible()
    page.keyboard.press("Escape")
    expect(operations).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    page.get_by_role("button", name="Close").click()
    expect(operations).to_be_hidden()
    button.click()
    current = operations.locator("[aria-current=page]")
    expect(current).to_contain_text("Create an API key")
    operations.get_by_role("link", name="Revoke an API key").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Revoke an API key")
    expect(operations).to_be_hidden()
    page.set_viewport_size({"width": 1280, "height": 844})
    expect(operations).to_be_visible()
    expect(page.get_by_role("button", name="Operations")).to_be_hidden()
    context.close()
