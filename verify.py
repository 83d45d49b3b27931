"""/verify: a gateway asks whether a key is good, for any method and any path below it.

It is WSGI (PEP 3333) in front of Flask, because every request of every service comes
here: a view would cost more than all the rest (bench/RESULTS.md).
"""

import logging
from collections.abc import Iterable
from functools import partial
from urllib.parse import parse_qs, quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from models.verification import Verifier
from origin import bearer_token, challenge, request_origin

SCOPES = {"read": "read", "write": "read write"}  # of a key, by its mode


class VerifyMiddleware:
    """Answers /verify itself and passes everything else on."""

    def __init__(self, application: WSGIApplication, verifier: Verifier) -> None:
        self.application = application
        self.verifier = verifier

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        # Only /verify and what is below it are ours; /verify-me is another path.
        if not f"{environ['PATH_INFO']}/".startswith("/verify/"):
            return self.application(environ, start_response)
        try:
            status, headers = self.verdict(environ)
        except Exception:
            logging.getLogger(__name__).exception("a key could not be verified")
            status, headers = "503 Service Unavailable", {"Retry-After": "1"}
        headers["Cache-Control"] = "no-store"
        headers["Content-Length"] = "0"
        start_response(status, list(headers.items()))
        return []

    def verdict(self, environ: WSGIEnvironment) -> tuple[str, dict[str, str]]:
        """Status and headers: whose key it is, or why it is refused (RFC 6750, 3).

        A good key without the scope is noted twice: as used, and as refused.
        """
        token = bearer_token(environ)
        get_origin = partial(request_origin, environ)
        key = self.verifier.good_key(token, get_origin)
        if key is None:
            return "401 Unauthorized", {"WWW-Authenticate": challenge(environ, 401)}
        scopes = SCOPES[key.mode]
        query = parse_qs(environ.get("QUERY_STRING", ""))
        # ``scope`` may be repeated: then all of them are needed.
        needed = " ".join(query.get("scope", [])).split()
        if not set(needed) <= set(scopes.split()):
            refused = key._replace(refusal="insufficient_scope")
            self.verifier.note("refusal", refused, get_origin)
            return "403 Forbidden", {"WWW-Authenticate": challenge(environ, 403)}
        return "200 OK", {
            "X-User-Id": key.user_id,
            "X-User-Name": quote(key.username, safe="@+"),
            "X-Key-Id": key.id,
            "X-Key-Scopes": scopes,
            "X-Key-Expires-At": key.expires_at,
        }
