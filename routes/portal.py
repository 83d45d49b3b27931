"""/ is the account page, /docs, /llms.txt and /openapi.json the documentation of the API."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, render_template
from markupsafe import Markup, escape

import docs
from routes import public_url

bp = Blueprint("portal", __name__)


@bp.app_template_filter()
def code(text: str) -> Markup:
    """Text of docs.toml or a docstring, with its `code` as HTML."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


@bp.app_template_filter()
def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


@bp.get("/")
def account() -> str:
    """The page calls the JSON API and has no logic of its own here."""
    return render_template("index.html")


@bp.get("/openapi.json")
def openapi() -> docs.Made:
    document, _ = docs.built()
    return {**document, "servers": [{"url": public_url()}]}


@bp.get("/docs")
def index() -> str:
    return page("docs.html")


@bp.get("/docs/<name>")
def operation(name: str) -> str | Response:
    """One operation, for people; with ``.md`` behind its name, for language models."""
    found = operations().get(name.removesuffix(".md")) or abort(404)
    if name.endswith(".md"):
        return Response(markdown(found), mimetype="text/markdown")
    return page("operation.html", operation=found)


@bp.get("/llms.txt")
def llms() -> Response:
    return Response(page("llms.txt"), mimetype="text/plain")


def operations() -> dict[str, docs.Made]:
    return docs.built()[1]


def markdown(found: docs.Made) -> str:
    return page("operation.md", operation=found)


def page(template: str, **more: Any) -> str:
    base, tags, (api, named) = public_url(), docs.TEXTS["tags"].values(), docs.built()
    server = {"url": f"{base}/mcp", "type": "http"}  # without a type some take it for a command
    more["mcp_json"] = pretty({f"{urlsplit(base).netloc} MCP server": server})
    known = {"api": api, "operations": named, "base": base, "tags": tags}
    return render_template(template, **known, **more)
