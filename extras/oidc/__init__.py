"""Sign in with the company's identity provider (OpenID Connect Core 1.0).

Off until LATCHKEY_OIDC_ISSUER, _CLIENT_ID and _CLIENT_SECRET are set. To delete
extras/account_page or extras/commands, which this extends, delete this folder too.
"""

from flask import Flask, abort, request
from marshmallow import Schema

from config import read_settings, text
from extras import LOCAL
from extras.oidc import commands as commands  # flask users link
from extras.oidc import logout, sign_in, step_up
from extras.oidc.provider import SignInFailed

NEEDED = {
    "LATCHKEY_OIDC_ISSUER",
    "LATCHKEY_OIDC_CLIENT_ID",
    "LATCHKEY_OIDC_CLIENT_SECRET",
}


class Settings(Schema):
    LATCHKEY_OIDC_ISSUER = text(
        "",
        rf"(https://[^\s?#]+|{LOCAL.pattern}(/[^\s?#]*)?)?",
        "https://<host>, and a path if the provider has one",
    )
    LATCHKEY_OIDC_CLIENT_ID = text("", r"\S*", "a text without spaces")
    LATCHKEY_OIDC_CLIENT_SECRET = text("", r"\S*", "a text without spaces")
    LATCHKEY_OIDC_NAME = text("single sign-on", ".{1,40}", "1 to 40 characters")
    LATCHKEY_OIDC_SIGN_UP = text("on", "on|off", "on or off")
    LATCHKEY_PASSWORD_LOGIN = text("on", "on|off", "on or off")


def register(app: Flask) -> None:
    """Add the routes and the step-up, if the settings are complete."""
    settings = read_settings(Settings(), app.config["ENVIRON"])
    missing = {name for name in NEEDED if not settings[name]}
    if missing == NEEDED:
        return
    if missing:
        raise SystemExit(f"latchkey: {min(missing)} is missing: OIDC needs all three")
    app.config.from_mapping(settings)
    app.register_blueprint(sign_in.bp)
    app.register_blueprint(logout.bp)
    app.register_error_handler(SignInFailed, sign_in.refuse)
    app.before_request_funcs["api_keys"].append(step_up.recent_sign_in)
    if settings["LATCHKEY_PASSWORD_LOGIN"] == "off":  # noqa: S105
        app.before_request(refuse_passwords)


def refuse_passwords() -> None:
    """Abort with 403 where a password would sign in."""
    if request.endpoint in ("login.login", "account_page.log_in"):
        abort(403)
