"""What a client of /mcp sends: a JSON-RPC message of one of the revisions."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from flask import current_app, request
from werkzeug.exceptions import HTTPException

from extras import LOCAL
from json_api import JSON, read_body

SERVER: JSON = json.loads(Path(__file__).with_name("server.json").read_bytes())
MODERN: JSON = SERVER["modern"]
HANDSHAKE: JSON = SERVER["handshake"]


class McpError(Exception):
    """An error of JSON-RPC 2.0 or of MCP, and the HTTP status for a modern client."""

    def __init__(self, code: int, message: str, status: int = 400, **data: Any) -> None:
        self.status = status
        self.body = {
            "code": code,
            "message": message,
            "data": data,
        }


def read_message() -> JSON:
    """The request or notification in the body. Raises McpError."""
    check_origin()
    try:
        body = read_body()
        if body.count(b"[") + body.count(b"{") > 500:
            raise ValueError  # each object and array costs time and memory
        message: JSON = json.loads(body)
    except (HTTPException, ValueError) as error:
        status = getattr(error, "code", 400)
        raise McpError(-32700, "not JSON, or too much of it", status) from None
    match message:
        case {"jsonrpc": "2.0", "method": str()}:
            if type(message.get("id", "")) in (str, int):
                return message
    raise McpError(-32600, "not a JSON-RPC 2.0 request with a string or integer as id")


def check_origin() -> None:
    """Raises McpError for a page of another site, whatever the Host (DNS rebinding)."""
    origin = request.headers.get("Origin", "http://localhost")
    if LOCAL.fullmatch(origin):
        return
    if origin != current_app.config["LATCHKEY_PUBLIC_URL"]:
        raise McpError(-32600, "origin not allowed", 403)


def find_revision(method: str, params: JSON) -> JSON:
    """HANDSHAKE or MODERN. Raises McpError.

    A modern client repeats parts of the body in the headers.
    """
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        meta = {}
    version = meta.get("io.modelcontextprotocol/protocolVersion")
    header = request.headers.get("MCP-Protocol-Version")
    if version is None and header in (None, *HANDSHAKE["versions"]):
        return HANDSHAKE
    if version not in (None, header):
        raise McpError(-32020, "header MCP-Protocol-Version does not equal the body")
    if header not in MODERN["versions"]:
        raise McpError(
            -32022,
            "unsupported version",
            supported=SERVER["versions"],
            requested=header,
        )
    check_header("Mcp-Method", method)
    check_header("Mcp-Name", params.get("name") or params.get("uri"))
    capabilities = meta.get("io.modelcontextprotocol/clientCapabilities")
    if version is None or not isinstance(capabilities, dict):
        raise McpError(-32602, "_meta needs protocolVersion and clientCapabilities")
    return MODERN


def check_header(name: str, value: Any) -> None:
    """Raises McpError unless the header has this value, as it is or in base64."""
    in_base64 = b64encode(str(value).encode(errors="replace")).decode()
    if request.headers.get(name) not in (value, f"=?base64?{in_base64}?="):
        raise McpError(-32020, f"header {name} does not equal the body")
