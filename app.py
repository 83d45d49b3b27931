"""create_app(): all the wiring, on one screen. Start reading here."""

import os
from collections.abc import Mapping

from flask import Flask, Response
from flask_migrate import Migrate
from werkzeug.middleware.proxy_fix import ProxyFix

import cli
import errors
from config import settings
from models.base import db
from routes import Anything, api_keys, mcp, oauth, pages, portal, secure_page, sessions, verify


def create_app(environ: Mapping[str, str] = os.environ) -> Flask:
    """The WSGI application (PEP 3333). Raises SystemExit, naming it, on a bad setting."""
    app = Flask(__name__)
    app.config.from_mapping(settings(environ))
    app.json.sort_keys = False  # type: ignore[attr-defined]  # code, message, data
    app.url_map.merge_slashes = False  # a doubled slash is a wrong address, never a redirect
    app.url_map.converters["anything"] = Anything
    if proxies := app.config["LATCHKEY_TRUSTED_PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]

    db.init_app(app)
    Migrate(app, db)
    errors.register(app)
    served = (sessions.public, sessions.bp, api_keys.bp, verify.bp, oauth.bp)
    for blueprint in (*served, pages.bp, portal.bp, mcp.bp):
        app.register_blueprint(blueprint)
    for command in (cli.users, cli.keys, cli.prune):
        app.cli.add_command(command)
    app.after_request(never_store)
    app.after_request(secure_page)
    return app


def never_store(response: Response) -> Response:
    """Answers carry tokens and verdicts; a cache that kept one would outlive a revocation."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response
