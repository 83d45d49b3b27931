"""create_app(): all the wiring, on one screen. Start reading here."""

import os
from collections.abc import Mapping

from flask import Flask, Response
from flask_migrate import Migrate

import errors
from auth import bearer_tokens
from config import load_settings
from extras import (
    account_page,
    audit_command,
    audit_trail,
    commands,
    docs,
    failover,
    gateway,
    health,
    log,
    maintenance,
    mcp,
    metrics,
    oauth,
    oidc,
    password,
)
from json_api import MAX_BODY
from models.connections import engine_options
from models.database import db
from models.verification import Verifier
from routes import api_keys, sessions
from verify import VerifyMiddleware

# To delete an extra: its line here, its import, its folder or file.
EXTRAS = [
    account_page,
    audit_command,
    audit_trail,
    commands,
    docs,
    failover,
    health,
    log,
    maintenance,
    mcp,
    metrics,
    oauth,
    oidc,
    password,
    gateway,  # last, so outermost: it corrects the address before /verify sees it
]


def create_app(environ: Mapping[str, str] = os.environ) -> Flask:
    """The WSGI application. Raises SystemExit, with one line, for a bad setting."""
    app = Flask(__name__, static_folder=None)
    # The extras read settings of their own from ENVIRON.
    app.config.from_mapping(load_settings(environ), ENVIRON=environ)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY + 1  # see json_api.read_body()
    # Answers keep the order of their members: code comes first.
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a doubled slash is not a redirect
    app.url_map.converters["key_id"] = api_keys.KeyIdConverter
    app.register_error_handler(Exception, errors.handle)
    app.after_request(set_headers)

    url = app.config["DATABASE_URL"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(url)  # including the URL
    db.init_app(app)  # after each request it undoes what was not committed
    Migrate(app, db)

    verifier = Verifier(url, app.config["LATCHKEY_KEY_PREFIX"])
    in_front = VerifyMiddleware(app.wsgi_app, verifier)
    app.wsgi_app = in_front  # type: ignore[method-assign]
    app.extensions["verifier"] = verifier
    app.extensions["token_sources"] = [bearer_tokens]
    app.register_blueprint(sessions.public)
    app.register_blueprint(sessions.bp)
    app.register_blueprint(api_keys.bp)

    for extra in EXTRAS:
        extra.register(app)
    return app


def set_headers(response: Response) -> Response:
    """No cache keeps a token or an answer, and no browser guesses at a type."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
