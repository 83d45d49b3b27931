"""Everything around the core: each can be deleted, with its line in app.py."""

import re

from flask import Response, current_app, request

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
# This machine, as a host or as an origin.
LOCAL = re.compile(r"(https?://)?(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


def public_url() -> str:
    """Where clients reach this service, without a slash at the end."""
    url: str = current_app.config["LATCHKEY_PUBLIC_URL"]
    return url or requested_origin()


def requested_origin() -> str:
    """Scheme and host as requested; werkzeug's ``host_url`` fails on bad punycode."""
    return f"{request.scheme}://{request.host}"


def secure_page(response: Response) -> Response:
    """A page runs our own files only, and no other site may frame it."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
