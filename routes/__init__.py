"""The blueprints, named after their URLs, and the contract of a view under /api."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flask import current_app, request
from marshmallow import EXCLUDE, Schema, ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.routing import BaseConverter

View = Callable[..., Any]
CONTRACTS: dict[View, "contract"] = {}


class Anything(BaseConverter):
    """The rest of a URL path, whatever it holds: empty, slashes, ``%00``."""

    regex = "(?s:.*)"
    part_isolating = False


@dataclass
class contract:  # noqa: N801
    """What a view takes and answers: carried out here, described by portal.py."""

    done: str  # what its success means; in lower case it is the message
    data: type[Schema] | None = None
    takes: type[Schema] | None = None  # of a GET the query, of any other its JSON
    refuses: tuple[int | str, ...] = ()  # statuses, and rules of errors.REFUSALS
    status: int = 200

    def __call__(self, view: View) -> View:
        @wraps(view)
        def called(**taken: Any) -> tuple[dict[str, Any], int]:
            if self.takes and request.method in ("GET", "HEAD"):
                taken |= self.takes(unknown=EXCLUDE).load(request.args)
            elif self.takes:
                taken |= self.takes().load(json_object())
            found = view(**taken)
            data = self.data().dump(found) if self.data else {}
            return {"code": self.status, "message": self.done.lower(), "data": data}, self.status

        CONTRACTS[called] = self
        return called


def limit_body() -> None:
    """Raises 413 for a long body; where it has no length, the rest was cut off unseen."""
    body, most = request.get_data(), current_app.config["MAX_CONTENT_LENGTH"]
    if request.content_length is None and len(body) >= most:
        raise RequestEntityTooLarge


def json_object() -> dict[str, Any]:
    """The JSON object in the request's body. Raises ValidationError, or 413 or 415."""
    limit_body()
    try:
        body = request.get_json()
    except (BadRequest, RecursionError):
        raise ValidationError("invalid_json", "body") from None
    if not isinstance(body, dict):
        raise ValidationError("invalid", "body")
    return body


def public_url() -> str:
    """Where clients reach Latchkey, without a slash at the end."""
    return str(current_app.config["LATCHKEY_PUBLIC_URL"] or request.host_url).rstrip("/")
