"""One blueprint a file, named after its URL; a view is 1 to 6 lines."""

from flask import Response, request
from werkzeug.routing import BaseConverter

POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
POLICY += "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
PAGE_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Anything(BaseConverter):
    """The rest of a URL path, whatever it holds: empty, slashes, ``%00``."""

    regex = "(?s:.*)"
    part_isolating = False


def secure_page(response: Response) -> Response:
    """What a browser shows runs nothing but our own files, in nobody's frame."""
    if request.endpoint == "static" or response.mimetype == "text/html":
        response.headers.update(PAGE_HEADERS, **{"Content-Security-Policy": POLICY})
    return response
