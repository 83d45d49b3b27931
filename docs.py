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
from routes import VIEWS, documented, public_url
from schemas.envelope import ErrorSchema

JSON = "application/json"
TEXTS = tomllib.loads(Path(__file__).with_name("docs.toml").read_text())
Made = dict[str, Any]  # a part of the document


def document() -> Made:
    """OpenAPI 3.1. Built once a process; only ``servers`` is the request's."""
    built = current_app.extensions.get("openapi") or build(current_app)
    current_app.extensions["openapi"] = built
    return {**built, "servers": [{"url": public_url()}]}


def build(app: Flask) -> Made:
    plugin = MarshmallowPlugin()
    spec = APISpec("Latchkey", "1", "3.1.0", [plugin], info={"description": TEXTS["about"]})
    plugin.converter.add_attribute_function(meaning)  # type: ignore[union-attr]
    for name, scheme in TEXTS["security"].items():
        spec.components.security_scheme(name, scheme)
    rules = sorted(app.url_map.iter_rules(), key=lambda rule: -len(rule.rule))
    routed = {app.view_functions[rule.endpoint]: rule for rule in rules}  # /verify, not below it
    for view, about in VIEWS.items():
        method = min((routed[view].methods or {"GET"}) - {"HEAD", "OPTIONS"}).lower()
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", routed[view].rule)
        spec.path(path, operations={method: operation(app, routed[view], about)})
    spec.components.schema("Answer", envelope({"type": ["object", "null"]}))
    days = spec.components.schemas["ApiKey"]["properties"]["expires_in_days"]
    days["default"] = app.config["LATCHKEY_DEFAULT_EXPIRY_DAYS"]
    days |= {"minimum": 1, "maximum": app.config["LATCHKEY_MAX_EXPIRY_DAYS"]}
    return spec.to_dict()


def operation(app: Flask, rule: Rule, about: documented) -> Made:
    view = app.view_functions[rule.endpoint]
    blueprint, _, name = rule.endpoint.rpartition(".")
    guarded = interactive_session in app.before_request_funcs.get(blueprint, [])
    security = "session" if guarded else about.security
    summary, _, more = (inspect.getdoc(view) or "").partition(". ")
    only = "Interactive session only: it cannot be called with an API key." * guarded
    made: Made = {
        "operationId": name.replace("_", "-"),
        "tags": [TEXTS["tags"][view.__module__.rpartition(".")[2]]],
        "summary": summary,
        "description": " ".join(f"{more} {only}".split()),
        "parameters": [{"in": "path", **TEXTS["path"][name]} for name in sorted(rule.arguments)],
        "security": [{security: []}] if security else [],
        "responses": responses(about, guarded),
    }
    if about.query:
        made["parameters"].append({"in": "query", "schema": about.query})
    if about.body:
        content = {"schema": about.body, "example": sample(about.body().load_fields)}
        made["requestBody"] = {"required": True, "content": {about.body_type: content}}
    return made


def responses(about: documented, guarded: bool) -> Made:
    """The success, the view's refusals, and those that come with its hook and its input."""
    found: Made = {}
    for code, (schema, names) in about.plain.items():
        add(found, code, schema, sample(schema().dump_fields) if schema else {}, names.split())
    reasons: list[Any] = [*about.refuses, 500]
    if not found:
        data = sample(about.data().dump_fields) if about.data else {}
        shown = {"code": about.status, "message": about.done.lower(), "data": data}
        add(found, about.status, envelope(about.data) if about.data else "Answer", shown)
        reasons += [*(401, 403) * guarded, *(413, 415) * bool(about.body)]
        if asked := about.body or about.query:
            name = next(iter(asked().load_fields))
            reasons.append(ValidationError({name: ["required" if about.body else "invalid"]}))
    for reason in reasons:
        body, status, headers = refusal(reason)
        add(found, status, ErrorSchema if body["data"] else "Answer", body, headers)
    found[str(about.status)]["description"] = about.done
    return dict(sorted(found.items()))


def add(found: Made, status: int, schema: Any, body: Any, headers: Any = ()) -> None:
    reply = found.setdefault(str(status), {"description": TEXTS["statuses"].get(str(status))})
    for name in headers:
        header = {"description": TEXTS["headers"][name], "schema": {"type": "string"}}
        reply.setdefault("headers", {})[name] = header
    if schema:
        empty = {"schema": schema, "examples": {}}
        shown = reply.setdefault("content", {}).setdefault(JSON, empty)["examples"]
        shown[f"answer-{len(shown) + 1}"] = {"value": body}


def refusal(reason: int | str | ValidationError) -> errors.Refusal:
    """What the service really answers, made by errors.py itself."""
    if isinstance(reason, str):
        return errors.refused(Refused(reason, TEXTS["refused"].get(reason, "")))
    if isinstance(reason, ValidationError):
        return errors.invalid(reason)
    return errors.http(default_exceptions[reason]())


def envelope(data: Any) -> Made:
    kinds = {"code": {"type": "integer"}, "message": {"type": "string"}, "data": data}
    return {"type": "object", "properties": kinds, "required": [*kinds]}


def texts(field: Any) -> list[Any]:
    """Meaning and example of a field: its schema's own, or any's (Schema is the last parent)."""
    sections = (TEXTS.get(cls.__name__, {}) for cls in type(field.parent).__mro__)
    return next((s[field.name] for s in sections if field.name in s), [])


def meaning(self: object, field: Any, ret: Made) -> Made:
    """For apispec: what it adds to a field."""
    said = dict(zip(("description", "examples"), texts(field), strict=False))
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
