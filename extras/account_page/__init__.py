"""The account page at /, and its session, which a browser keeps in a cookie.

Besides, the page that a browser gets where there is none.
"""

from typing import Any

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

from extras import LOCAL, requested_origin, secure_page
from json_api import success
from models.database import db
from models.session import Session
from routes import sessions

COOKIE = "latchkey"

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
    app.after_request(show_not_found)
    app.extensions["token_sources"].append(session_cookies)


@bp.get("/")
def page() -> str:
    """The same for everybody: its script asks the API for what it shows."""
    blueprints = current_app.blueprints
    return render_template("account_page/index.html", blueprints=blueprints)


def show_not_found(response: Response) -> Response:
    """In place of a 404 in JSON: a page, for a browser, outside /api."""
    in_api = f"{request.path}/".startswith("/api/")
    if in_api or response.status_code != 404:
        return response
    accepted = request.accept_mimetypes.best_match(["application/json", "text/html"])
    if accepted == "text/html":
        blueprints = current_app.blueprints
        page = render_template("account_page/not_found.html", blueprints=blueprints)
        response.set_data(page)
        response.mimetype = "text/html"
        secure_page(response)
    return response


@bp.post("/api/session")
def log_in() -> Response:
    """Log in as by the API, but the token is in a cookie, which no script can read."""
    require_same_origin()
    body, _ = sessions.login()
    token = body["data"].pop("token")
    response = make_response(body)
    set_session_cookie(response, token)
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
    response.delete_cookie(COOKIE, path="/api")
    return response


def set_session_cookie(response: Response, token: str) -> None:
    """Until the browser is closed."""
    set_cookie(response, COOKIE, token, path="/api", samesite="Strict")


def set_cookie(response: Response, name: str, value: str, **options: Any) -> None:
    """A cookie that no script reads, and no network but on this machine."""
    response.set_cookie(
        name,
        value,
        secure=request.is_secure or not LOCAL.fullmatch(request.host),
        httponly=True,
        **options,
    )


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
        same = request.headers.get("Origin") == requested_origin()
    else:
        same = site == "same-origin"
    if not same:
        abort(403)
