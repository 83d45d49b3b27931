"""The identity provider: what it answers, and what it has signed."""

import json
import re
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import quote_plus, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from flask import current_app, g
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from extras import LOCAL
from models.database import setting
from models.user import admitted

SECONDS = 4  # for all that one request of ours asks the provider
MAX_ANSWER = 256 * 1024  # bytes
SAFE_URL = re.compile(rf"https://|{LOCAL.pattern}/")
ALGORITHMS = ["RS256", "PS256", "ES256", "Ed25519"]  # asymmetric ones only
KEY_TYPES = ("RSA", "EC", "OKP")

pool = ThreadPoolExecutor(2)


@dataclass
class SignInFailed(Exception):
    reason: str  # one word, for the page and the audit trail
    user_id: str | None = None


class Answer(dict[str, Any]):
    """A JSON object of the provider's."""

    def __missing__(self, name: str) -> None:
        raise SignInFailed("provider_failed")


class NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """A redirect is an error."""


opener = build_opener(NoRedirects)


class TokenClaims(jwt.JWTClaimsRegistry):
    """``auth_time`` is a time that has passed, as ``iat`` is."""

    validate_auth_time = jwt.JWTClaimsRegistry.validate_iat


def must_be(value: str) -> jwt.ClaimsOption:
    return {"essential": True, "value": value}


def ask(url: str, authorization: str | None = None, **form: str) -> Answer:
    """The JSON object that the provider answers; to a POST if there is a form.

    Raises SignInFailed, at the latest SECONDS after the first question of a request.
    As for passwords, at most three of a worker's four threads wait.
    """
    if not SAFE_URL.match(url) or not admitted.acquire(blocking=False):
        raise SignInFailed("provider_failed")
    deadline = g.setdefault("provider_deadline", monotonic() + SECONDS)
    request = Request(url, urlencode(form).encode() or None)  # noqa: S310
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        return pool.submit(read, request).result(deadline - monotonic())
    except Exception as error:
        current_app.logger.warning("identity provider: %s: %r", url, error)
        raise SignInFailed("provider_failed") from None
    finally:
        admitted.release()


def read(request: Request) -> Answer:
    with opener.open(request, timeout=SECONDS) as answer:
        return Answer(json.loads(answer.read(MAX_ANSWER)))


def cached(url: str, seconds: float) -> Answer:
    """A document of the provider, at most so old; each worker has its own copies."""
    documents = current_app.extensions.setdefault("oidc", {})
    asked_at, document = documents.get(url, (0, None))
    if document is None or monotonic() - asked_at > seconds:
        documents[url] = (monotonic(), ask(url))
    return documents[url][1]  # type: ignore[no-any-return]


def metadata() -> Answer:
    """OpenID Connect Discovery 1.0, section 4."""
    issuer = setting("LATCHKEY_OIDC_ISSUER")
    found = cached(f"{issuer.rstrip('/')}/.well-known/openid-configuration", 600)
    if found.get("issuer") != issuer:
        raise SignInFailed("other_issuer")
    return found


def signed_keys(seconds: float) -> KeySet:
    keys = cached(metadata()["jwks_uri"], seconds)["keys"]
    known = [key for key in keys if key.get("kty") in KEY_TYPES]
    return KeySet.import_key_set({"keys": known})


def signed_claims(token: str, **needed: Any) -> Answer:
    """What the provider has signed for us. Raises SignInFailed."""
    client_id = setting("LATCHKEY_OIDC_CLIENT_ID")
    rules = TokenClaims(
        leeway=60,
        iss=must_be(setting("LATCHKEY_OIDC_ISSUER")),
        aud=must_be(client_id),
        azp={"value": client_id},
        iat={"essential": True},
        **needed,
    )
    try:
        try:
            claims = jwt.decode(token, signed_keys(600), ALGORITHMS).claims
        except JoseError:  # the keys may be new
            claims = jwt.decode(token, signed_keys(10), ALGORITHMS).claims
        rules.validate(claims)
    except (JoseError, ValueError) as error:
        raise SignInFailed("bad_token") from error
    return Answer(claims)


def redeem(code: str, verifier: str, redirect_uri: str, nonce: str) -> Answer:
    """The claims of who signed in (OpenID Connect Core, 3.1.3 and 5.3)."""
    client_id = quote_plus(setting("LATCHKEY_OIDC_CLIENT_ID"))
    client_secret = quote_plus(setting("LATCHKEY_OIDC_CLIENT_SECRET"))
    credentials = b64encode(f"{client_id}:{client_secret}".encode())
    answer = ask(
        metadata()["token_endpoint"],
        f"Basic {credentials.decode()}",  # RFC 6749, 2.3.1
        grant_type="authorization_code",
        code=code,
        redirect_uri=redirect_uri,
        code_verifier=verifier,
    )
    claims = signed_claims(
        answer["id_token"],
        sub={"essential": True},
        exp={"essential": True},
        nonce=must_be(nonce),
    )
    if "preferred_username" in claims:
        return claims
    user_info = ask(metadata()["userinfo_endpoint"], f"Bearer {answer['access_token']}")
    if user_info["sub"] != claims["sub"]:
        raise SignInFailed("bad_token")
    return Answer(user_info | claims)
