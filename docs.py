"""The API described: OpenAPI 3.1, generated from the routes, the schemas and what they refuse."""

import inspect
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask, current_app
from marshmallow import ValidationError, fields
from werkzeug.exceptions import default_exceptions
from werkzeug.routing import Rule

import errors
from auth import interactive_session
from models.base import Refused
from routes import CONTRACTS, contract
from schemas.error import ErrorSchema

TEXTS = tomllib.loads(Path(__file__).with_name("docs.toml").read_text())
JSON = "application/json"
Made = dict[str, Any]  # a part of the document


def built() -> tuple[Made, dict[str, Made]]:
    """The document; its operations by name, every schema in its place. Once a process."""
    if "docs" not in current_app.extensions:
        paths = document(current_app, schema_name_resolver=lambda schema: None)["paths"]
        made = [{**o, "path": p, "method": m.upper()} for p in paths for m, o in paths[p].items()]
        operations = {each["operationId"]: each for each in made}
        current_app.extensions["docs"] = document(current_app), operations
    return current_app.extensions["docs"]  # type: ignore[no-any-return]


def document(app: Flask, **plugin: Any) -> Made:
    marshmallow = MarshmallowPlugin(**plugin)
    spec = APISpec("Latchkey", "1", "3.1.0", [marshmallow], info={"description": TEXTS["about"]})
    marshmallow.converter.add_attribute_function(meaning)  # type: ignore[union-attr]
    for name, scheme in TEXTS["security"].items():
        spec.components.security_scheme(name, scheme)
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        if app.view_functions[rule.endpoint] in CONTRACTS or path in TEXTS["plain"]:
            method = min((rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}).lower()
            spec.path(path, operations={method: operation(app, rule, path)})
    return spec.to_dict()


def operation(app: Flask, rule: Rule, path: str) -> Made:
    """What a view says of itself; the rest is in its contract or, outside /api, in docs.toml."""
    view, blueprint = app.view_functions[rule.endpoint], rule.endpoint.partition(".")[0]
    guarded = interactive_session in app.before_request_funcs.get(blueprint, [])
    summary, _, more = (inspect.getdoc(view) or "").partition(". ")
    only = "Interactive session only: it cannot be called with an API key." * guarded
    made: Made = {
        "operationId": view.__name__.replace("_", "-"),
        "tags": [TEXTS["tags"][view.__module__.rpartition(".")[2]]],
        "summary": summary,
        "description": " ".join(f"{more} {only}".split()),
        "parameters": [{"in": "path", **TEXTS["path"][name]} for name in sorted(rule.arguments)],
        "security": [{"session": []}] * guarded,
    }
    if view not in CONTRACTS:
        plain = TEXTS["plain"][path]
        also = refusals(*(413,) * ("requestBody" in plain), 500)
        return {**made, **plain, "responses": {**plain["responses"], **also}}
    about = CONTRACTS[view]
    if about.query:
        made["parameters"].append({"in": "query", "schema": about.query})
    if about.body:
        content = {"schema": about.body, "example": sample(about.body().load_fields)}
        made["requestBody"] = {"required": True, "content": {JSON: content}}
    return made | {"responses": responses(about, guarded)}


def responses(about: contract, guarded: bool) -> Made:
    """The success, and what the view, its hook and its input refuse."""
    data = sample(about.data().dump_fields) if about.data else {}
    shown = {"code": about.status, "message": about.done.lower(), "data": data}
    reasons: list[Any] = [
        *about.refuses,
        *(401, 403) * guarded,
        *(413, 415) * bool(about.body),
        500,
    ]
    if asked := about.body or about.query:
        name = next(iter(asked().load_fields))
        reasons.append(ValidationError({name: ["required" if about.body else "invalid"]}))
    success = reply(about.done, envelope(about.data), shown, {})
    return {str(about.status): success} | refusals(*reasons)


def refusals(*reasons: Any) -> Made:
    """By status, for each status, rule or exception: errors.py itself makes the example."""
    found: Made = {}
    for reason in reasons:
        if isinstance(reason, str):
            reason = Refused(reason, TEXTS["refused"].get(reason, ""))
        failure = default_exceptions[reason]() if isinstance(reason, int) else reason
        body, status, headers = errors.refusal(failure)
        schema = ErrorSchema if body["data"] else envelope(None)
        new = reply(TEXTS["statuses"][str(status)], schema, body, headers)
        examples = found.setdefault(str(status), new)["content"][JSON]["examples"]
        if {"value": body} not in examples.values():
            examples[f"answer-{len(examples) + 1}"] = {"value": body}
    return dict(sorted(found.items()))


def reply(meaning: str, schema: Any, body: Any, headers: Mapping[str, str]) -> Made:
    content = {JSON: {"schema": schema, "examples": {"answer-1": {"value": body}}}}
    told = {n: {"description": TEXTS["headers"][n], "schema": {"type": "string"}} for n in headers}
    return {"description": meaning, "content": content} | ({"headers": told} if told else {})


def envelope(data: Any) -> Made:
    data = data or {"type": ["object", "null"]}
    kinds = {"code": {"type": "integer"}, "message": {"type": "string"}, "data": data}
    return {"type": "object", "properties": kinds, "required": [*kinds]}


def texts(field: Any) -> list[Any]:
    """Meaning and example of a field: its schema's own, or any's (Schema is the last parent)."""
    sections = (TEXTS.get(cls.__name__, {}) for cls in type(field.parent).__mro__)
    return next((s[field.name] for s in sections if field.name in s), [])


def meaning(self: object, field: Any, ret: Made) -> Made:
    """For apispec: what it adds to a field."""
    said = dict(zip(("description", "examples"), texts(field), strict=False))
    if field.name == "expires_in_days":
        said["default"] = current_app.config["LATCHKEY_DEFAULT_EXPIRY_DAYS"]
        said |= {"minimum": 1, "maximum": current_app.config["LATCHKEY_MAX_EXPIRY_DAYS"]}
    kind = TEXTS["kinds"].get(type(field).__name__, {}).items()
    return said | {name: value for name, value in kind if not ret.get(name)}


def sample(shown: Mapping[str, Any]) -> Made:
    """An example of these fields; null where docs.toml has none."""
    made: Made = {}
    for name, kind in shown.items():
        one = kind.inner if isinstance(kind, fields.List) else kind
        nested = sample(one.schema.dump_fields) if isinstance(one, fields.Nested) else None
        value = nested or next(iter(texts(kind)[1:]), [None])[0]
        made[name] = value if one is kind else [value] * (value is not None)
    return made
