"""/mcp: the documentation for AI tools, by MCP 2026-07-28 and the revisions with a handshake."""

import base64
import re
from typing import Any, NoReturn

from flask import Blueprint, abort, current_app, g, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from routes.portal import TEXTS, Made, operations

bp = Blueprint("mcp", __name__)
RESULTS, HINT = TEXTS["mcp"]["results"], TEXTS["mcp"]["hint"]
MODERN, *HANDSHAKE = VERSIONS = RESULTS["modern"]["server/discover"]["supportedVersions"]
LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


@bp.post("/mcp")
def mcp() -> Made | tuple[str, int]:
    """One JSON-RPC message in, one out; nothing in answer to a notification."""
    g.reply, g.era = {"jsonrpc": "2.0"}, "modern"
    message = read()
    if "id" not in message:
        return "", 202
    g.reply["id"] = message["id"]
    method, params = message["method"], message.get("params", {})
    g.era = era(method, params if isinstance(params, dict) else {})
    if method not in RESULTS[g.era]:
        fail(-32601, "method not found", 404)
    if not isinstance(params, dict):
        fail(-32602, "params must be an object")
    result = RESULTS["handshake"].get(method, {}) | RESULTS[g.era][method]
    if method == "initialize" and params.get("protocolVersion") in HANDSHAKE:
        result["protocolVersion"] = params["protocolVersion"]
    if method == "tools/call":
        result |= call(params.get("name"), params.get("arguments", {}))
    return {**g.reply, "result": result}


def fail(code: int, message: str, status: int = 400, **data: Any) -> NoReturn:
    """Answer with an error; after a handshake in HTTP 200: on 400 the Python SDK 1.x hangs up."""
    error = {"code": code, "message": message, "data": data}
    abort(make_response({**g.reply, "error": error}, status if g.era == "modern" else 200))


def read() -> Made:
    """The one message of the body, if who sent it may (DNS rebinding: an Origin is not a Host)."""
    origin = request.headers.get("Origin", "http://localhost")
    if not LOCAL.fullmatch(origin) and origin != current_app.config["LATCHKEY_PUBLIC_URL"]:
        fail(-32600, "origin not allowed", 403)
    try:
        message: Made = request.get_json(force=True)
    except (HTTPException, RecursionError) as exc:
        fail(-32700, "not JSON, or too much of it", getattr(exc, "code", 400))
    match message:
        case {"jsonrpc": "2.0", "method": str()} if type(message.get("id", "")) in (str, int):
            return message
    fail(-32600, "one JSON-RPC 2.0 message is wanted, its id a string or an integer")


def era(method: str, params: Made) -> str:
    """Which era a request is of: "handshake", or "modern" with headers that equal its body."""
    meta = params["_meta"] if isinstance(params.get("_meta"), dict) else {}
    stated = meta.get("io.modelcontextprotocol/protocolVersion")
    version = request.headers.get("MCP-Protocol-Version")
    if stated is None and version in (None, *HANDSHAKE):
        return "handshake"
    if stated not in (None, version):
        fail(-32020, "header MCP-Protocol-Version does not equal the body")
    if version != MODERN:
        fail(-32022, "unsupported version", supported=VERSIONS, requested=version)
    told = {"Mcp-Method": method, "Mcp-Name": params.get("name") or params.get("uri")}
    for header, value in told.items():
        encoded = base64.b64encode(str(value).encode(errors="replace")).decode()
        if request.headers.get(header) not in (value, f"=?base64?{encoded}?="):
            fail(-32020, f"header {header} does not equal the body")
    if stated is None or type(meta.get("io.modelcontextprotocol/clientCapabilities")) is not dict:
        fail(-32602, "_meta needs protocolVersion and clientCapabilities")
    return "modern"


def call(tool: Any, arguments: Any) -> Made:
    """A tool's text. A wrong argument is a result that says so: the model can put it right."""
    match tool, arguments:
        case "list_endpoints", {}:
            text = render_template("llms.txt")
        case "search_docs", {"query": str(query)}:
            text = search(query.lower().split())
        case "get_endpoint", {"method": str(method), "path": str(path)}:
            text = endpoint(method.upper(), path)
        case "search_docs" | "get_endpoint", {}:
            text = ""
        case _:
            fail(-32602, "unknown tool, or arguments are no object")
    return {"content": [{"type": "text", "text": text or HINT}], "isError": not text}


def search(words: list[str]) -> str:
    """Up to five operations, the best first: with most of the words in title, then in text."""
    found = []
    for each in operations().values():
        title = f"- {each['method']} {each['path']}: {each['summary']}. {each['description']}"
        page = render_template("operation.md", operation=each)
        score = [sum(word in text.lower() for word in words) for text in (title, page)]
        found += [(score, title)] if any(score) else []
    best = [title for _, title in sorted(found, reverse=True)[:5]]
    return "\n".join(best) or "Nothing found. list_endpoints shows all there is."


def endpoint(method: str, path: str) -> str:
    """The page of an operation, its path with or without /api; nothing if there is none."""
    for each in operations().values():
        pattern = re.sub(r"\{\w+\}", "[^/]+", each["path"].removeprefix("/api"))
        if method == each["method"] and re.fullmatch(f"(/api)?{pattern}/?", path):
            return render_template("operation.md", operation=each)
    return ""
