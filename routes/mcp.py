"""/mcp: the documentation for AI tools. Model Context Protocol over HTTP, JSON answers, no state.

It speaks both eras on one URL: revision 2026-07-28, where each request says its version in
``_meta``, and the earlier ones, which begin with ``initialize``.
"""

import base64
import binascii
import json
import re
from typing import Any

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from routes import mcp_tools

bp = Blueprint("mcp", __name__)
MODERN, HANDSHAKE = "2026-07-28", ["2025-11-25", "2025-06-18", "2025-03-26"]
VERSIONS = [MODERN, *HANDSHAKE]
LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
PUBLIC, META = "LATCHKEY_PUBLIC_URL", "io.modelcontextprotocol/"
SERVER = {"name": "latchkey", "title": "Latchkey API documentation", "version": "1"}
ABOUT = {
    "capabilities": {"tools": {}},
    "instructions": "The documentation of the Latchkey API; it cannot call the API.",
}
CACHE = {"ttlMs": 3_600_000, "cacheScope": "public"}
BAD_JSON, BAD_REQUEST, NO_METHOD, BAD_PARAMS = -32700, -32600, -32601, -32602
BAD_HEADER, BAD_VERSION = -32020, -32022


class Failed(Exception):
    """A JSON-RPC error: code, message, data, and the HTTP status of the modern era."""

    def __init__(self, code: int, message: str, status: int = 400, **data: Any) -> None:
        self.error = {"code": code, "message": message} | ({"data": data} if data else {})
        self.status = status


@bp.post("/mcp")
def mcp() -> ResponseReturnValue:
    """One JSON-RPC message in, one out. An error reaches a handshake client in HTTP 200: on a 400
    the Python client 1.x ends its session."""
    known: dict[str, Any] = {"jsonrpc": "2.0"}
    handshake = False
    try:
        message = read()
        if "id" not in message:
            return "", 202
        known["id"] = message["id"]
        params = message.get("params", {})
        handshake = era(message["method"], params)
        if not isinstance(params, dict):
            raise Failed(BAD_PARAMS, "params must be an object")
        result = answer(message["method"], params, handshake)
    except Failed as exc:
        return {**known, "error": exc.error}, 200 if handshake else exc.status
    return {**known, "result": result}


def read() -> dict[str, Any]:
    """The one message of the body, if who sent it may (DNS rebinding: an Origin is not a Host)."""
    origin = request.headers.get("Origin")
    if not (origin is None or LOCAL.fullmatch(origin) or origin == current_app.config[PUBLIC]):
        raise Failed(BAD_REQUEST, "origin not allowed", 403)
    try:
        message = json.loads(request.get_data())
    except RequestEntityTooLarge:
        raise Failed(BAD_REQUEST, "request too large", 413) from None
    except (ValueError, RecursionError):
        raise Failed(BAD_JSON, "not JSON") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Failed(BAD_REQUEST, "one JSON-RPC 2.0 message is wanted, no batch")
    if not isinstance(message.get("method"), str) or type(message.get("id", "")) not in (str, int):
        raise Failed(BAD_REQUEST, "method must be a string, id a string or an integer")
    return message


def era(method: str, params: Any) -> bool:
    """Whether this request is of a handshake revision; else its headers fit its body."""
    named, version = mapping(params), request.headers.get("MCP-Protocol-Version")
    meta = mapping(named.get("_meta"))
    stated = meta.get(f"{META}protocolVersion")
    if stated is None and version in (None, *HANDSHAKE):
        return True
    if stated not in (None, version):
        raise Failed(BAD_HEADER, "header MCP-Protocol-Version does not equal the body")
    if version != MODERN:
        raise Failed(BAD_VERSION, "unsupported version", supported=VERSIONS, requested=version)
    if stated is None or not isinstance(meta.get(f"{META}clientCapabilities"), dict):
        raise Failed(BAD_PARAMS, "_meta needs protocolVersion and clientCapabilities")
    calls = {"Mcp-Name": named.get("name")} if method == "tools/call" else {}
    for name, wanted in ({"Mcp-Method": method} | calls).items():
        if plain(request.headers.get(name, "")) != wanted:
            raise Failed(BAD_HEADER, f"header {name} does not equal the body")
    return False


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def plain(value: str) -> str:
    """A header's value, decoded where it is in base64."""
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Failed(BAD_HEADER, "bad base64 in a header") from None


def answer(method: str, params: dict[str, Any], handshake: bool) -> dict[str, Any]:
    if handshake and method == "initialize":
        wanted = params.get("protocolVersion")
        version = wanted if wanted in HANDSHAKE else HANDSHAKE[0]
        return {"protocolVersion": version, "serverInfo": SERVER, **ABOUT}
    if handshake and method == "ping":
        return {}
    modern = {"resultType": "complete", "_meta": {f"{META}serverInfo": SERVER}}
    if method == "tools/call":
        return call(params) | ({} if handshake else modern)
    if method == "tools/list":
        return {"tools": mcp_tools.LISTED} | ({} if handshake else modern | CACHE)
    if method == "server/discover" and not handshake:
        return {"supportedVersions": VERSIONS, **ABOUT, **modern, **CACHE}
    raise Failed(NO_METHOD, "method not found", 404)


def call(params: dict[str, Any]) -> dict[str, Any]:
    """A tool's text. A wrong argument is a result that says so: the model can put it right."""
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or name not in mcp_tools.TOOLS or not isinstance(arguments, dict):
        raise Failed(BAD_PARAMS, "unknown tool, or arguments are no object")
    try:
        text, failed = mcp_tools.run(name, arguments), False
    except LookupError as exc:
        text, failed = str(exc.args[0]), True
    return {"content": [{"type": "text", "text": text}], "isError": failed}
