"""The API reference at /docs, as HTML and as Markdown, made of openapi.json.

extras/mcp answers from these pages: to delete this folder, delete that one too.
"""

import json
import re
from mimetypes import guess_type
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    render_template,
    request,
)
from markupsafe import escape

from extras import public_url, secure_page
from extras.docs.document import list_operations, load_document

# In a rendered page they stand for the public URL and its host.
HOST = "base-url.invalid"
BASE_URL = f"https://{HOST}"

bp = Blueprint(
    "docs",
    __name__,
    template_folder="templates",
    static_folder="static",
    static_url_path="/static/docs",
)
bp.after_request(secure_page)


def register(app: Flask) -> None:
    app.register_blueprint(bp)


@bp.get("/docs")
@bp.get("/docs/<name>")
@bp.get("/llms.txt")
@bp.get("/openapi.json")
def page(name: str = "") -> Response:
    """A page; an operation's name with ``.md`` behind it gives Markdown."""
    return Response(page_text(request.path), mimetype=guess_type(request.path)[0])


def page_text(path: str) -> str:
    """The page at this path, with the public URL in it. Aborts with 404."""
    page = pages().get(path) or abort(404)
    url = escape(public_url())
    host = url.partition("//")[2]
    return page.replace(BASE_URL, url).replace(HOST, host)


def pages() -> dict[str, str]:
    """Every page by its path, rendered once a process."""
    extensions = current_app.extensions
    if "docs" not in extensions:
        extensions["docs"] = render_pages()
    return extensions["docs"]  # type: ignore[no-any-return]


def render_pages() -> dict[str, str]:
    document = load_document(current_app.config)
    document["servers"] = [{"url": BASE_URL}]
    operations = list_operations(document)
    shared = {
        "document": document,
        "operations": operations,
        "base_url": BASE_URL,
        "blueprints": current_app.blueprints,
    }
    rendered = {
        "/docs": render_template("docs/index.html", **shared),
        "/llms.txt": render_template("docs/llms.txt", **shared),
        "/openapi.json": pretty_json(document),
    }
    for operation in operations:
        path = f"/docs/{operation['operationId']}"
        shared["operation"] = operation
        rendered[path] = render_template("docs/operation.html", **shared)
        rendered[f"{path}.md"] = render_template("docs/operation.md", **shared)
    return rendered


def find_endpoint(method: str, path: str) -> str:
    """The Markdown page of an operation, its path with or without /api, or ""."""
    wanted = f"# {method.upper()} {path}".rstrip("/")
    for page_path, page in pages().items():
        heading = page.partition("\n")[0]
        pattern = re.sub(r"\{\w+\}", "[^/]+", heading)
        pattern = pattern.replace(" /api", " (/api)?")
        if re.fullmatch(pattern, wanted):
            return page_text(page_path)
    return ""


def search(query: str) -> list[str]:
    """The titles of the Markdown pages that have a word of the query, best first."""
    words = query.lower().split()[:10]  # bounded, and so is the cost
    scores = {}
    for path, page in pages().items():
        if path.endswith(".md"):
            heading, description = page.split("\n\n", 2)[:2]
            summary = description.partition(".")[0].lower().split()
            text = page.lower()
            # A word of the summary counts more than all words of the rest.
            score = sum((word in text) + 11 * (word in summary) for word in words)
            if score:
                scores[f"- {heading[2:]}: {description}"] = score
    return sorted(scores, key=scores.__getitem__, reverse=True)


@bp.app_template_filter()
def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
