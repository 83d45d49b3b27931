"""/docs, /llms.txt and /openapi.json: the documentation, for people, language models and tools."""

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


@bp.get("/openapi.json")
def openapi() -> docs.Made:
    return docs.document()


@bp.get("/docs")
def index() -> str:
    return page("docs.html")


@bp.get("/docs/<name>")
def operation(name: str) -> str | Response:
    """One operation, for people; with ``.md`` behind its name, for language models."""
    found = operations().get(name.removesuffix(".md")) or abort(404)
    if name.endswith(".md"):
        return Response(markdown(found), mimetype="text/markdown")
    return page("operation.html", operation=found, curl=page("curl.txt", operation=found))


@bp.get("/llms.txt")
def llms() -> Response:
    return Response(page("llms.txt"), mimetype="text/plain")


def markdown(found: docs.Made) -> str:
    return page("operation.md", operation=found, curl=page("curl.txt", operation=found))


def page(template: str, **more: Any) -> str:
    base = public_url()
    known: docs.Made = {"api": docs.document(), "operations": operations(), "base": base}
    server = {"url": f"{base}/mcp", "type": "http"}  # without a type some take it for a command
    known["mcp_json"] = pretty({f"{urlsplit(base).netloc} MCP server": server})
    return render_template(template, tags=docs.TEXTS["tags"].values(), **known, **more)


def operations() -> dict[str, docs.Made]:
    """By name; every ``$ref`` replaced by what it points to."""
    api = docs.document()
    paths = inlined(api["paths"], api["components"]["schemas"])
    made = [{**o, "path": p, "method": m.upper()} for p in paths for m, o in paths[p].items()]
    return {each["operationId"]: each for each in made}


def inlined(node: Any, schemas: docs.Made) -> Any:
    if isinstance(node, list):
        return [inlined(each, schemas) for each in node]
    if not isinstance(node, dict):
        return node
    pointed = schemas[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    return {name: inlined(each, schemas) for name, each in {**pointed, **node}.items()}
