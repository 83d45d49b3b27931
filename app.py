"""create_app(): all the wiring, on one screen. Start reading here."""

import os
from collections.abc import Mapping

from flask import Flask, Response, request
from flask_migrate import Migrate
from werkzeug.middleware.proxy_fix import ProxyFix

import cli
import errors
from config import settings
from models.base import db
from routes import Anything, api_keys, mcp, oauth, portal, sessions, verify

POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
POLICY += "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
PAGE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
PAGE["Content-Security-Policy"] = POLICY


def create_app(environ: Mapping[str, str] = os.environ) -> Flask:
    """The WSGI application (PEP 3333). Raises SystemExit, naming it, on a bad setting."""
    app = Flask(__name__)
    app.config.from_mapping(settings(environ))
    app.json.sort_keys = False  # type: ignore[attr-defined]  # code, message, data
    app.url_map.merge_slashes = False  # a doubled slash is never a redirect
    app.url_map.converters["anything"] = Anything
    if proxies := app.config["LATCHKEY_TRUSTED_PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]
    db.init_app(app)
    Migrate(app, db)
    app.register_error_handler(Exception, errors.refusal)
    for bp in (sessions.public, sessions.bp, api_keys.bp, verify.bp, oauth.bp, portal.bp, mcp.bp):
        app.register_blueprint(bp)
    for command in (cli.users, cli.keys, cli.prune):
        app.cli.add_command(command)
    app.after_request(protect)
    return app


def protect(response: Response) -> Response:
    """No cache keeps a token or a verdict; a page runs our own files only, in nobody's frame."""
    endpoint, headers = request.endpoint or "", response.headers
    if endpoint.startswith(("static", "portal.")):
        headers.update(PAGE)
    if endpoint != "static" or "Cache-Control" not in headers:  # a file: look whether it changed
        headers["Cache-Control"] = "no-store"
    return response
