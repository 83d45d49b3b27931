"""Identity providers for the tests: a certified one, and one that forges tokens."""

import json
import re
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urljoin

import httpx
from joserfc import jwt
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry
from npm import NODE, installed
from servers import ROOT, free_port, wait_for

SECRET = "s" * 40
CALLBACK = "/login/oidc/callback"


def settings(issuer, **more):
    return {
        "LATCHKEY_OIDC_ISSUER": issuer,
        "LATCHKEY_OIDC_CLIENT_ID": "latchkey",
        "LATCHKEY_OIDC_CLIENT_SECRET": SECRET,
        **more,
    }


class Provider:
    """npm oidc-provider, which has the certificate of the OpenID Foundation."""

    def __init__(self, config, home, port=None):
        self.modules = installed(config, "oidc-provider@9.13.3")
        self.home = home
        self.port = port or free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self, *latchkeys):
        """Serve these services, with new keys."""
        program = self.home / "oidc_provider.mjs"
        program.write_text((ROOT / "tests/oidc_provider.mjs").read_text())
        if not (self.home / "node_modules").exists():
            (self.home / "node_modules").symlink_to(self.modules)
        environ = {"PORT": str(self.port), "LATCHKEYS": " ".join(latchkeys)}
        with (self.home / "provider.log").open("ab") as log:
            self.process = subprocess.Popen(
                [NODE, program], env=environ, stdout=log, stderr=log
            )
        wait_for(f"{self.issuer}/.well-known/openid-configuration")
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)


class Person:
    """Somebody with a browser of their own, as far as the provider sees it."""

    def __init__(self, subject):
        self.subject = subject
        self.http = httpx.Client(timeout=10)

    def go_through(self, url, until=CALLBACK):
        """Where the provider sends the browser in the end, once it has signed in."""
        answer = self.http.get(url)
        for _ in range(20):
            if answer.is_redirect:
                url = str(answer.next_request.url)
                if until in url:
                    return url
                answer = self.http.get(url)
            elif "<form" in answer.text:
                answer = self.submit(answer)
            else:
                break
        raise AssertionError(f"the provider stays at {answer.url}: {answer.text}")

    def submit(self, answer):
        [action] = re.findall('action="([^"]+)"', answer.text)[:1]
        fields = dict(
            re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', answer.text)
        )
        if 'name="login"' in answer.text:
            fields |= {"login": self.subject, "password": "any"}
        if "logout" in answer.text:
            fields |= {"logout": "yes"}
        return self.http.post(urljoin(str(answer.url), action), data=fields)


class Forger(ThreadingHTTPServer):
    """A provider of our own, which answers whatever a test wants."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ForgerHandler)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.keys = {"1": RSAKey.generate_key(2048, {"kid": "1"})}
        self.answers = {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/me",
            },
        }
        self.publish()

    def publish(self):
        keys = [key.as_dict(private=False) for key in self.keys.values()]
        self.answers["/keys"] = {"keys": keys}

    def claims(self, **changes):
        """Good ones, with these changes; None takes a claim away."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "dora",
            "aud": "latchkey",
            "iat": now,
            "exp": now + 60,
            "auth_time": now,
            "preferred_username": "dora",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims, header=None, key=None):
        header = {"alg": "RS256", "kid": "1", **(header or {})}
        signer = key or self.keys["1"]
        registry = JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
        return jwt.encode(header, claims, signer, registry=registry)

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class ForgerHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.answers.get(self.path)
        if callable(answer):
            answer = answer(self)
        if answer is None:
            return
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *words):
        pass
