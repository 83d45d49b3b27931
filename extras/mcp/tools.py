"""The three tools, which answer from the pages of extras/docs."""

from extras.docs import find_endpoint, page_text, search
from extras.mcp.messages import McpError
from json_api import JSON

WRONG_ARGUMENTS = (
    "There is no such endpoint, or the arguments are not these: search_docs takes "
    "query, get_endpoint takes method and path, each a string. list_endpoints shows "
    "all there is."
)


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
