"""GET /healthz: a load balancer asks whether this host can serve."""

import os

from flask import Blueprint, Flask, current_app

from json_api import Answer, success
from models.connections import is_sqlite
from models.database import Refused
from models.verification import Verifier

bp = Blueprint("health", __name__)


def register(app: Flask) -> None:
    app.register_blueprint(bp)


@bp.get("/healthz")
def healthz() -> Answer:
    """200 if keys can be verified and revoked, else 503, within about two seconds."""
    verifier: Verifier = current_app.extensions["verifier"]
    try:
        verifier.read("")
        if database_is_writable(verifier):
            return success("ok")
    except Exception:
        current_app.logger.exception("the database does not answer")
    raise Refused("busy", 1)


def database_is_writable(verifier: Verifier) -> bool:
    """Whether a revocation could be written, by the file's rights or PostgreSQL."""
    if is_sqlite(verifier.database_url):
        return os.access(verifier.database_url.removeprefix("sqlite:///"), os.W_OK)
    with verifier.cursor() as cursor:
        [read_only] = cursor.execute("SHOW transaction_read_only").fetchone()
    return bool(read_only == "off")
