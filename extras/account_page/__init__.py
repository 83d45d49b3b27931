"""The account page at /, and its session, which a browser keeps in a cookie."""

import re

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    make_response,
    render_template,
    request,
)

from auth import origin
from extras import secure_page
from json_api import load_json, success
from models.database import db
from models.session import Session
from models.user import User
from schemas.requests import LoginSchema
from schemas.resources import SessionSchema

COOKIE = "latchkey"
LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")

bp = Blueprint(
    "account_page",
    __name__,
    template_folder="templates",
    static_folder="static",
    static_url_path="/static/account",
)
bp.after_request(secure_page)


def register(app: Flask) -> None:
    """Add the page, and the cookie as a place where a session's token may be."""
    app.register_blueprint(bp)
    app.extensions["token_sources"].append(session_cookies)


@bp.get("/")
def page() -> str:
    """The same for everybody: its script asks the API for what it shows."""
    has_docs = "docs" in current_app.blueprints
    return render_template("account_page/index.html", has_docs=has_docs)


@bp.post("/api/session")
def log_in() -> Response:
    """Log in. The token is in a cookie, which no script can read."""
    require_same_origin()
    data = load_json(LoginSchema())
    user = User.check_password(**data, origin=origin(), refusal="bad_credentials")
    session = Session.start(user)
    db.session.commit()
    schema = SessionSchema(only=("expires_at", "user"))
    response = make_response(success("login successful", schema.dump(session)))
    set_cookie(response, session.token)
    return response


@bp.delete("/api/session")
def log_out() -> Response:
    """End the session, if it has not ended yet, and clear the cookie."""
    require_same_origin()
    for value in session_cookies():
        session = Session.by_token(value)
        if session:
            Session.end(Session.digest == session.digest)
    db.session.commit()
    response = make_response(success("logout successful"))
    set_cookie(response, "", max_age=0)
    return response


def session_cookies() -> list[str]:
    """The values of every cookie of our name: a browser may send several.

    Aborts with 403 when another site's page may have sent the cookie (CSRF).
    """
    values = [value for value in request.cookies.getlist(COOKIE) if value]
    if values and request.method not in ("GET", "HEAD"):
        require_same_origin()
    return values


def require_same_origin() -> None:
    """Abort with 403 unless one of our own pages made the browser send the request."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:  # older browsers send the Origin only
        same = request.headers.get("Origin") == request.host_url.removesuffix("/")
    else:
        same = site == "same-origin"
    if not same:
        abort(403)


def set_cookie(response: Response, value: str, max_age: int | None = None) -> None:
    """Without ``max_age``, in seconds, it lasts until the browser is closed."""
    is_local = LOCAL_HOST.fullmatch(request.host) is not None
    response.set_cookie(
        COOKIE,
        value,
        max_age=max_age,
        path="/api",
        secure=request.is_secure or not is_local,
        httponly=True,
        samesite="Strict",
    )
