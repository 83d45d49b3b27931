"""What the MCP server offers: the documentation, read-only. Arguments are strings."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from routes.portal import markdown, operations, page


def list_endpoints() -> str:
    """List every endpoint of the Latchkey API: method, path, summary."""
    return page("llms.txt")


def search_docs(query: str) -> str:
    """Search the documentation of the Latchkey API: up to five endpoints, the best first."""
    words, found = set(re.findall(r"\w+", query.lower())), []
    for each in operations().values():
        title, text = f"{each['method']} {each['path']}: {each['summary']}", markdown(each).lower()
        score = sum((word in text) + 3 * (word in title.lower()) for word in words)
        found += [(score, f"- {title}. {each['description']}")] * bool(score)
    best = [line for _, line in sorted(found, key=lambda hit: -hit[0])[:5]]
    return "\n".join(best) or "Nothing found. list_endpoints shows all there is."


def get_endpoint(method: str, path: str) -> str:
    """Get the documentation of one endpoint: parameters, answers, errors, examples."""
    for each in operations().values():
        alike = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(each["path"]))
        said = any(re.fullmatch(alike, start + path.rstrip("/")) for start in ("", "/api"))
        if said and method.upper() == each["method"]:
            return markdown(each)
    raise LookupError(f"There is no {method} {path}. list_endpoints shows all there is.")


def run(name: str, arguments: dict[str, Any]) -> str:
    """The answer of a tool. Raises LookupError, in words for a model."""
    wanted = inspect.signature(TOOLS[name]).parameters.keys()
    if arguments.keys() != wanted or not all(isinstance(v, str) for v in arguments.values()):
        raise LookupError(f"The arguments are {', '.join(wanted) or 'none'}; each is a string.")
    return TOOLS[name](**arguments)


def schema(tool: Callable[..., str]) -> dict[str, Any]:
    names = [*inspect.signature(tool).parameters]
    kinds = {name: {"type": "string", "description": MEANINGS[name]} for name in names}
    return {"type": "object", "properties": kinds, "required": names, "additionalProperties": False}


TOOLS: dict[str, Callable[..., str]] = {
    tool.__name__: tool for tool in (list_endpoints, search_docs, get_endpoint)
}
MEANINGS = {"query": "Words to look for", "method": "As GET", "path": "As /api/me/api-keys/{id}"}
READS = {"readOnlyHint": True, "openWorldHint": False}
LISTED = [
    {"name": name, "description": t.__doc__, "inputSchema": schema(t), "annotations": READS}
    for name, t in TOOLS.items()
]
