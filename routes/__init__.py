"""One blueprint a file, named after its URL; a view is 1 to 6 lines."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Response, current_app, request
from marshmallow import Schema
from werkzeug.routing import BaseConverter

POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
POLICY += "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
PAGE_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
View = TypeVar("View", bound=Callable[..., Any])
Plain = tuple[type[Schema] | None, str]  # of the body, if there is one; names of headers
VIEWS: dict[Callable[..., Any], "documented"] = {}


class Anything(BaseConverter):
    """The rest of a URL path, whatever it holds: empty, slashes, ``%00``."""

    regex = "(?s:.*)"
    part_isolating = False


@dataclass
class documented:  # noqa: N801
    """What the code of a view does not say, said beside it; its docstring says the rest."""

    done: str  # what its success means
    data: type[Schema] | None = None  # in the envelope
    status: int = 200
    query: type[Schema] | None = None
    body: type[Schema] | None = None
    body_type: str = "application/json"
    refuses: tuple[int | str, ...] = ()  # statuses, and rules of errors.REFUSALS
    plain: dict[int, Plain] = field(default_factory=dict)  # answers without the envelope
    security: str | None = None  # "session" goes without saying: the blueprint's hook says it

    def __call__(self, view: View) -> View:
        VIEWS[view] = self
        return view


def public_url() -> str:
    """Where clients reach Latchkey, without a slash at the end."""
    return str(current_app.config["LATCHKEY_PUBLIC_URL"] or request.host_url).rstrip("/")


def secure_page(response: Response) -> Response:
    """What a browser shows runs nothing but our own files, in nobody's frame."""
    if request.endpoint == "static" or request.blueprint in ("pages", "portal"):
        response.headers.update(PAGE_HEADERS, **{"Content-Security-Policy": POLICY})
    return response
