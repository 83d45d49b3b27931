"""/docs, /llms.txt and /openapi.json: the documentation, for people, language models and tools."""

from flask import Blueprint

import docs

bp = Blueprint("portal", __name__)


@bp.get("/openapi.json")
def openapi() -> docs.Made:
    return docs.document()
