"""openapi.json, with the expiry limits of this service, and its operations."""

import json
from pathlib import Path
from typing import Any

from flask import Config

from json_api import JSON


def load_document(config: Config) -> JSON:
    """The OpenAPI document. tools/make_openapi.py makes the file."""
    text = Path(__file__).with_name("openapi.json").read_bytes()
    document: JSON = json.loads(text)
    expires_in_days = document["components"]["schemas"]["ExpiresInDays"]
    expires_in_days.update(
        default=config["LATCHKEY_DEFAULT_EXPIRY_DAYS"],
        maximum=config["LATCHKEY_MAX_EXPIRY_DAYS"],
    )
    return document


def list_operations(document: JSON) -> list[JSON]:
    """Every operation with its path and method, and without references."""
    operations = []
    for path, path_item in document["paths"].items():
        for method, part in path_item.items():
            operation = resolve(part, document["components"])
            operation["path"] = path
            operation["method"] = method.upper()
            operations.append(operation)
    return operations


def resolve(part: Any, components: JSON) -> Any:
    """A copy of a part of the document, with components in place of references."""
    if isinstance(part, list):
        return [resolve(item, components) for item in part]
    if not isinstance(part, dict):
        return part
    resolved = {name: resolve(value, components) for name, value in part.items()}
    if "$ref" in part:
        kind, name = resolved.pop("$ref").split("/")[2:]  # of #/components/kind/name
        resolved |= resolve(components[kind][name], components)
    return resolved
