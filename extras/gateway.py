"""What stands in front: proxies forward addresses, gateways pass on anything.

Without it, every client of a proxy has the proxy's address.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Request
from marshmallow import Schema
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter

from config import number, read_settings


class Settings(Schema):
    LATCHKEY_TRUSTED_PROXIES = number(0, 0, 10)


def register(app: Flask) -> None:
    """Register it last: what it wraps sees the client's address and scheme."""
    settings = read_settings(Settings(), app.config["ENVIRON"])
    proxies = settings["LATCHKEY_TRUSTED_PROXIES"]
    application = with_client_address(app.wsgi_app, proxies)
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        application, x_for=0, x_proto=proxies
    )

    def create_url_adapter(request: Request | None) -> MapAdapter | None:
        """Only the path and the method choose a view.

        Werkzeug would answer 400 to a request for a websocket or an odd host name.
        """
        if request is None:
            return None
        return app.url_map.bind(
            "",
            path_info=request.path,
            default_method=request.method,
        )

    app.create_url_adapter = create_url_adapter  # type: ignore[method-assign]


def with_client_address(application: WSGIApplication, proxies: int) -> WSGIApplication:
    """Set REMOTE_ADDR to what so many proxies say, if that is an address.

    Each proxy appends one value. ProxyFix would take a quote that a client has opened
    for the beginning of a text, which hides the values behind it.
    """

    def wrapped(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        if environ["SERVER_PROTOCOL"] == "HTTP/1.1" and "HTTP_HOST" not in environ:
            start_response("400 Bad Request", [("Content-Length", "0")])
            return []  # RFC 9112, 3.2
        peer = environ.get("REMOTE_ADDR") or ""
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "")
        values = re.findall(r'[^,\s"]+', forwarded)
        client = values[-proxies] if 0 < proxies <= len(values) else ""
        environ["REMOTE_ADDR"] = canonical_address(client) or canonical_address(peer)
        return application(environ, start_response)

    return wrapped


@lru_cache  # a proxy's own address comes with every request
def canonical_address(text: str) -> str:
    """An address as RFC 5952 writes it, without port or zone; empty if it is none."""
    try:
        if text.count(":") < 2 or "[" in text:  # a port may follow
            text = urlsplit(f"//{text}").hostname or ""
        address = ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address))  # without a zone
    return str(address)
