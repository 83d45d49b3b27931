"""Make extras/docs/openapi.json of docs/api.yaml and the marshmallow schemas.

python tools/make_openapi.py            writes the file
python tools/make_openapi.py --check    exits 1 if the file is stale
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for the imports below, which are Latchkey's own

from config import SettingsSchema  # noqa: E402
from extras import audit_trail, password  # noqa: E402
from schemas import error, requests, resources  # noqa: E402

SOURCE = ROOT / "docs/api.yaml"
TARGET = ROOT / "extras/docs/openapi.json"

Json = dict[str, Any]

# A schema that is nested in another one stands before it.
REQUESTS: list[type[Schema]] = [
    requests.LoginSchema,
    requests.NewKeySchema,
    password.NewPasswordSchema,
    audit_trail.AuditQuerySchema,
]
RESPONSES: list[type[Schema]] = [
    resources.UserSchema,
    resources.SessionSchema,
    resources.KeySchema,
    resources.CreatedKeySchema,
    audit_trail.AuditEventSchema,
    resources.PaginationSchema,
]
ERRORS: list[type[Schema]] = [
    error.ErrorItemSchema,
    error.ErrorDataSchema,
    error.ErrorSchema,
]

# What RequestSchema refuses in every text: NUL.
STORABLE = r"^[^\x00]*$"
# What `visible` refuses: a text of white space and invisible characters only. JSON
# Schema has no Unicode categories, so the usual ones are listed.
UNSEEN = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e"
    r"\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ue000-\uf8ff\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
)
SETTINGS = SettingsSchema().load({})  # the defaults; extras/docs shows the real ones
# What apispec cannot know: our own validators in the words of JSON Schema.
VALIDATORS: dict[Any, Json] = {
    requests.visible: {
        "minLength": 1,
        "pattern": rf"^[^\x00]*[^{UNSEEN}][^\x00]*$",
    },
    requests.fits_bcrypt: {
        "format": "password",
        "minLength": 1,
        "maxLength": 72,
    },
    password.acceptable: {
        "format": "password",
        "minLength": 8,
        "maxLength": 72,
        "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$",
    },
    requests.expiry_allowed: {
        "minimum": 1,
        "maximum": SETTINGS["LATCHKEY_MAX_EXPIRY_DAYS"],
        "default": SETTINGS["LATCHKEY_DEFAULT_EXPIRY_DAYS"],
    },
}


def make_document() -> Json:
    """The whole document: api.yaml with the schemas and the query parameters added."""
    document: Json = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    schemas = make_schemas()
    query = schemas.pop("AuditQuery")
    name_expires_in_days(schemas)
    for schema in RESPONSES:
        require_everything(schemas[component_name(schema)])
    components = document["components"]
    components["parameters"].update(query_parameters(query))
    components["schemas"].update(schemas)
    return document


def make_schemas() -> Json:
    """The marshmallow schemas in JSON Schema, by name."""
    plugin = MarshmallowPlugin()
    spec = APISpec("Latchkey", "1", "3.1.0", plugins=[plugin])
    if plugin.converter is None:
        raise RuntimeError("APISpec sets the converter")
    plugin.converter.add_attribute_function(complete)  # type: ignore[no-untyped-call]
    for schema in [*REQUESTS, *RESPONSES, *ERRORS]:
        spec.components.schema(component_name(schema), schema=schema)
    schemas: Json = spec.to_dict()["components"]["schemas"]
    return schemas


def component_name(schema: type[Schema]) -> str:
    return schema.__name__.removesuffix("Schema")


def complete(converter: object, field: fields.Field[Any], ret: Json) -> Json:
    """More JSON Schema for a field; apispec calls it for each of them."""
    keywords: Json = {}
    is_request = isinstance(field.parent, requests.RequestSchema)
    if isinstance(field, audit_trail.Moment):
        del ret["format"]
        keywords["anyOf"] = [{"format": "date-time"}, {"format": "date"}]
    elif isinstance(field, fields.DateTime):
        del ret["pattern"]
        keywords["format"] = "date-time"
    elif is_request and ret["type"] == "string" and "enum" not in ret:
        keywords["pattern"] = STORABLE
    for validator in field.validators:
        keywords.update(VALIDATORS.get(validator, {}))
    return keywords


def name_expires_in_days(schemas: Json) -> None:
    """Give it a schema of its own, which extras/docs fills in.

    Besides, openapi-typescript takes a property with a default for a required one.
    """
    properties = schemas["NewKey"]["properties"]
    schemas["ExpiresInDays"] = properties["expires_in_days"]
    properties["expires_in_days"] = {"$ref": "#/components/schemas/ExpiresInDays"}


def require_everything(schema: Json) -> None:
    """Every field is in every answer; a later version may add one."""
    schema["required"] = list(schema["properties"])
    schema.pop("additionalProperties", None)


def query_parameters(schema: Json) -> Json:
    """The properties of a schema as parameters of a URL, by name."""
    parameters = {}
    for name, property_schema in schema["properties"].items():
        parameters[name] = {
            "name": name,
            "in": "query",
            "description": property_schema.pop("description"),
            "schema": property_schema,
        }
    return parameters


def main() -> None:
    text = json.dumps(make_document(), indent=2, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit("extras/docs/openapi.json is stale: run python tools/make_openapi.py")


if __name__ == "__main__":
    main()
