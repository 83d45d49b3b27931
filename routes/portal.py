"""The API in OpenAPI 3.1, made from routes, schemas and docs.toml, and the pages that show it."""

import json
import re
import tomllib
from copy import deepcopy
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response, abort, current_app, render_template

from auth import interactive_session
from routes import CONTRACTS, contract, public_url

HERE = Path(__file__).parents[1]
TEXTS = tomllib.loads((HERE / "docs.toml").read_text())
EXAMPLES = json.loads((HERE / "examples.json").read_text())
Made = dict[str, Any]  # a part of the document
bp = Blueprint("portal", __name__)
bp.add_app_template_global(public_url)
bp.add_app_template_filter(json.dumps)


def page(template: str, **known: Any) -> Response:
    """A template, as the HTML, Markdown or plain text that its name says."""
    return Response(render_template(template, **known), mimetype=guess_type(template)[0])


bp.add_url_rule("/", "account", page, defaults={"template": "index.html"})  # calls the JSON API
bp.add_url_rule("/docs", "index", page, defaults={"template": "docs.html"})
bp.add_url_rule("/llms.txt", "llms", page, defaults={"template": "llms.txt"})


@bp.get("/docs/<name>")
def operation(name: str) -> Response:
    """One operation, for people; with ``.md`` behind its name, for language models."""
    found = operations().get(name.removesuffix(".md")) or abort(404)
    return page("operation.md" if name.endswith(".md") else "operation.html", operation=found)


@bp.get("/openapi.json")
def openapi() -> Made:
    return {**document(), "servers": [{"url": public_url()}]}


@bp.app_template_global()
def operations() -> dict[str, Made]:
    """Every operation by its name, with its path and method."""
    paths = document()["paths"].items()
    made = [{**o, "path": p, "method": m.upper()} for p, item in paths for m, o in item.items()]
    return {each["operationId"]: each for each in made}


@bp.app_template_global()
def document() -> Made:
    """The whole document, made once a process: what docs.toml has of it and every contract."""
    if "docs" not in current_app.extensions:
        plugin, written = MarshmallowPlugin(), deepcopy(TEXTS["openapi"])  # apispec adds to it
        spec = APISpec("Latchkey", "1", "3.1.0", [plugin], **written)
        spec.components.schema("Answer", TEXTS["answer"])
        plugin.converter.add_attribute_function(meaning)  # type: ignore[union-attr]
        for rule in current_app.url_map.iter_rules():
            if about := CONTRACTS.get(current_app.view_functions[rule.endpoint]):
                path = re.sub(r"<\w+:(\w+)>", r"{\1}", rule.rule)
                method = min((rule.methods or set()) - {"HEAD", "OPTIONS"}).lower()
                spec.path(path, operations={method: described(rule.endpoint, method, about)})
        current_app.extensions["docs"] = spec.to_dict()
    return current_app.extensions["docs"]  # type: ignore[no-any-return]


def described(endpoint: str, method: str, about: contract) -> Made:
    """What a view says of itself, and what its contract takes, answers and refuses."""
    view, blueprint = current_app.view_functions[endpoint], endpoint.partition(".")[0]
    summary, _, more = " ".join((view.__doc__ or "").split()).partition(". ")
    name, schema = view.__name__.replace("_", "-"), deepcopy(TEXTS["answer"])
    schema["properties"] |= {"data": about.data} if about.data else {}
    content = {"schema": schema, "examples": {"answer-1": {"value": EXAMPLES[name]["answer"]}}}
    success = {"description": about.done, "content": {"application/json": content}}
    made: Made = {"operationId": name, "summary": summary, "description": more}
    made |= {"tags": [TEXTS["tags"][blueprint]], "parameters": [], "security": []}
    made["responses"] = {str(about.status): success, **TEXTS["refusals"]["any"]}
    if interactive_session in current_app.before_request_funcs.get(blueprint, []):
        made["security"] = [{"session": []}]
        made["responses"] |= TEXTS["refusals"]["session"]
    if about.takes and method == "get":
        made["parameters"] = [{"in": "query", "schema": about.takes}]
        made["responses"] |= TEXTS["refusals"]["query"]
    elif about.takes:
        content = {"schema": about.takes, "example": EXAMPLES[name]["body"]}
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
        made["responses"] |= TEXTS["refusals"]["body"]
    for reason in about.refuses:
        made["responses"] |= TEXTS["refusals"][str(reason)]
    return made


def meaning(self: object, field: Any, ret: Made) -> Made:
    """What docs.toml says of a field, in this schema or in any; apispec calls it."""
    known, schema, config = TEXTS["fields"], type(field.parent).__name__, current_app.config
    said: Made = known.get(field.name, {}) | known.get(f"{schema}.{field.name}", {})
    if field.name == "expires_in_days":
        said["default"] = config["LATCHKEY_DEFAULT_EXPIRY_DAYS"]
        said["maximum"] = config["LATCHKEY_MAX_EXPIRY_DAYS"]
    return said
