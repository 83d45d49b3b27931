"""One blueprint a file, named after its URL; a view is 1 to 6 lines."""

from flask import current_app, request
from werkzeug.routing import BaseConverter


class Anything(BaseConverter):
    """The rest of a URL path, whatever it holds: empty, slashes, ``%00``."""

    regex = "(?s:.*)"
    part_isolating = False


def public_url() -> str:
    """Where clients reach Latchkey, without a slash at the end."""
    return str(current_app.config["LATCHKEY_PUBLIC_URL"] or request.host_url).rstrip("/")
