"""/mcp: the API reference for AI tools (Model Context Protocol). Needs extras/docs.

It speaks revision 2026-07-28, here called modern, and two that begin with a handshake.
"""

from flask import Blueprint, Flask
from flask.typing import ResponseReturnValue

from extras.docs import find_endpoint, page_text, search
from extras.mcp.messages import HANDSHAKE, MODERN, McpError, find_revision, read_message
from json_api import JSON

WRONG_ARGUMENTS = (
    "There is no such endpoint, or the arguments are not these: search_docs takes "
    "query, get_endpoint takes method and path, each a string. list_endpoints shows "
    "all there is."
)

bp = Blueprint("mcp", __name__)


def register(app: Flask) -> None:
    app.register_blueprint(bp)


@bp.post("/mcp")
def mcp() -> ResponseReturnValue:
    """One JSON-RPC message in, one out; nothing in answer to a notification."""
    reply: JSON = {"jsonrpc": "2.0"}
    revision = MODERN
    try:
        message = read_message()
        if "id" not in message:
            return "", 202
        reply["id"] = message["id"]
        method = message["method"]
        params = message.get("params", {})
        if not isinstance(params, dict):
            raise McpError(-32602, "params must be an object", 200)
        revision = find_revision(method, params)
        reply["result"] = answer(method, params, revision["results"])
    except McpError as error:
        reply["error"] = error.body
        if revision is MODERN:
            return reply, error.status
    return reply  # after a handshake too: on status 400 the Python SDK 1.x hangs up


def answer(method: str, params: JSON, results: JSON) -> JSON:
    """The result of a method: what server.json has, and what depends on the params."""
    if method not in results:
        raise McpError(-32601, "method not found", 404)
    result = dict(results[method])
    if method == "tools/call":
        result |= call_tool(params)
    version = params.get("protocolVersion")
    if method == "initialize" and version in HANDSHAKE["versions"]:
        result["protocolVersion"] = version
    return result


def call_tool(params: JSON) -> JSON:
    """A tool's text. Wrong arguments are no error: the model can put them right."""
    match params.get("name"), params.get("arguments", {}):
        case "list_endpoints", {}:
            text = page_text("/llms.txt")
        case "search_docs", {"query": str(query)}:
            text = "\n".join(search(query)[:5])
            text = text or "Nothing found. list_endpoints shows all there is."
        case "get_endpoint", {"method": str(method), "path": str(path)}:
            text = find_endpoint(method, path)
        case "search_docs" | "get_endpoint", {}:
            text = ""
        case _:
            raise McpError(-32602, "unknown tool, or arguments are no object")
    content = {"type": "text", "text": text or WRONG_ARGUMENTS}
    return {"content": [content], "isError": not text}
