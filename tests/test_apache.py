"""deploy/gateway/apache.conf in the real Apache: mod_oauth2 asks /oauth/introspect."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from servers import ROOT, free_port

pytestmark = pytest.mark.live
MODULES = "/usr/lib/apache2/modules"
FRAME = """
ServerRoot {home}
ServerName localhost
PidFile {home}/pid
Listen 127.0.0.1:{port}
ErrorLog {home}/log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_user_module {modules}/mod_authz_user.so
LoadModule oauth2_module {modules}/mod_oauth2.so
{user}
DocumentRoot {home}/site
"""


@pytest.fixture
def apache():
    """Start Apache with the lines of deploy/gateway/apache.conf and what it defines."""
    if not (shutil.which("apache2") and os.path.exists(f"{MODULES}/mod_oauth2.so")):
        missing = "needs apache2: apt-get install libapache2-mod-oauth2"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    home, started = Path(tempfile.mkdtemp()), []
    home.chmod(0o755)  # Apache reads it as nobody

    def start(text, **defines):
        for name, value in defines.items():
            text = re.sub(
                f"^Define {name} .*", f"Define {name} {value}", text, flags=re.M
            )
        port, user = (
            free_port(),
            "User nobody\nGroup nogroup" if os.getuid() == 0 else "",
        )
        (home / "site").mkdir()
        (home / "site/page").write_text("in")
        frame = FRAME.format(home=home, port=port, modules=MODULES, user=user)
        (home / "httpd.conf").write_text(frame + text)
        command = ["apache2", "-f", home / "httpd.conf", "-DFOREGROUND"]
        started.append(subprocess.Popen(command))
        for _ in range(100):
            try:
                httpx.get(f"http://127.0.0.1:{port}/")
                return f"http://127.0.0.1:{port}/page"
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError((home / "log").read_text())

    yield start
    for process in started:
        process.terminate()
        process.wait(10)
    shutil.rmtree(home)


def ask(url, key, method="GET"):
    headers = {"Authorization": f"Bearer {key['token']}"}
    return httpx.request(method, url, headers=headers).status_code


def test_apache_lets_a_key_in_by_its_scope_and_never_a_revoked_one(
    apache, serve, alice, bob
):
    gateway, reader, writer = bob.key(), alice.key(), alice.key(mode="write")
    text = (ROOT / "deploy/gateway/apache.conf").read_text()
    who = {"CLIENT_ID": gateway["key_public"], "CLIENT_SECRET": gateway["token"]}
    url = apache(text, LATCHKEY=serve().url, **who)
    assert httpx.get(url).status_code == 401
    assert ask(url, {"token": reader["token"][:-1]}) == 401
    assert [ask(url, key) for key in (reader, writer)] == [200, 200]
    # 405: let in, but a file cannot be deleted.
    assert [ask(url, key, "DELETE") for key in (reader, writer)] == [401, 405]
    alice.call("DELETE", f"/api/me/api-keys/{reader['id']}")
    assert [ask(url, reader) for _ in range(3)] == [401] * 3
    bob.call("DELETE", f"/api/me/api-keys/{gateway['id']}")
    assert ask(url, writer) == 401
