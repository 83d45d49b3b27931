"""Identity providers for the tests: a certified one, and one that forges tokens."""

import re
import subprocess
import threading
from contextlib import contextmanager
from urllib.parse import urljoin

import httpx
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
