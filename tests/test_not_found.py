"""What a browser gets where there is no page; programs get JSON as ever."""

import pytest

from app import create_app

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
JSON = {"code": 404, "message": "not found", "data": {}}


@pytest.fixture
def get(app):
    return app.test_client().get


@pytest.mark.parametrize("path", ["/nowhere", "/docs/nothing", "/apis", "/static/x"])
def test_a_browser_gets_a_page_with_a_way_back(get, path):
    answer = get(path, headers={"Accept": CHROME})
    assert answer.status_code == 404
    assert answer.content_type == "text/html; charset=utf-8"
    assert '<a href="/">' in answer.text and 'href="/docs"' in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert int(answer.headers["Content-Length"]) == len(answer.data)


def test_the_page_repeats_nothing_of_the_address(get):
    answer = get("/<b>lk_secret</b>?a=lk_secret", headers={"Accept": CHROME})
    assert answer.status_code == 404 and "lk_secret" not in answer.text


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "application/json", "application/json, text/html", "image/*", ""],
)
def test_whoever_does_not_ask_for_a_page_gets_json(get, accept):
    headers = {} if accept is None else {"Accept": accept}
    answer = get("/nowhere", headers=headers)
    assert (answer.status_code, answer.json) == (404, JSON)
    assert "Content-Security-Policy" not in answer.headers


def test_under_api_it_is_json_for_everybody(alice, get):
    for path in ("/api/nowhere", "/api/", "/api"):
        answer = get(path, headers={"Accept": CHROME})
        assert (answer.status_code, answer.json) == (404, JSON)
    path = "/api/me/api-keys/unknown"
    answer = alice.call("DELETE", path, headers={"Accept": CHROME})
    assert answer.status_code == 404
    assert answer.json["message"] == "api key not found"


def test_no_other_refusal_is_a_page(alice, get):
    chrome = {"Accept": CHROME}
    assert get("/api/me", headers=chrome).json["code"] == 401
    refused = alice.http.post("/docs", headers=chrome)
    assert refused.status_code == 405 and refused.json["code"] == 405


def test_without_the_docs_the_page_does_not_point_to_them(database_url, monkeypatch):
    for name in ("docs", "mcp"):
        monkeypatch.setattr(f"extras.{name}.register", lambda app: None)
    http = create_app({"DATABASE_URL": database_url}).test_client()
    page = http.get("/nowhere", headers={"Accept": CHROME}).text
    assert '<a href="/">' in page and "/docs" not in page


def test_without_the_account_page_it_is_json(database_url, monkeypatch):
    monkeypatch.setattr("extras.account_page.register", lambda app: None)
    http = create_app({"DATABASE_URL": database_url}).test_client()
    answer = http.get("/nowhere", headers={"Accept": CHROME})
    assert (answer.status_code, answer.json) == (404, JSON)
