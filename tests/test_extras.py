"""Each extra can be deleted with its line in app.py; the service goes on without it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from servers import PASSWORD, ROOT

from tools import reading

pytestmark = pytest.mark.live
NOT_NEEDED = shutil.ignore_patterns(
    ".*", "__pycache__", "bench", "instance", "node_modules", "tests", "tools"
)
TOGETHER = {
    "docs": ["docs", "mcp"],  # the MCP server serves the documentation
    "account_page": ["account_page", "oidc"],  # which sets the page's cookie
    "commands": ["commands", "audit_command", "oidc"],  # which find keys and users
}
SHARED = ("extras/__init__.py", "extras/operator.py")  # they register nothing
MENTION = r"^    {0}(,|\.register\(app\))(  #.*)?\n"  # a line of its own
EXTRAS = sorted(
    part.removeprefix("extras/").removesuffix(".py")
    for part in reading.parts()
    if part.startswith("extras/") and part not in SHARED
)
# From sign-in to the revoked key, with nothing of ours but the core.
STORY = f"""
import json
from flask_migrate import upgrade
from app import create_app
from models.database import db
from models.user import User

app = create_app()
with app.app_context():
    upgrade()
    user = User(username="alice")
    user.set_password({PASSWORD!r})
    db.session.add(user)
    db.session.commit()

http = app.test_client()
answers = []

def call(method, path, token=None, **body):
    headers = {{"Authorization": f"Bearer {{token}}"}} if token else {{}}
    answer = http.open(path, method=method, headers=headers, json=body or None)
    answers.append([method, path, answer.status_code])
    return answer

who = {{"username": "alice", "password": {PASSWORD!r}}}
session = call("POST", "/api/auth/login", **who).json["data"]["token"]
wanted = {{"name": "script", "mode": "read", "password": {PASSWORD!r}}}
key = call("POST", "/api/me/api-keys", session, **wanted).json["data"]
call("GET", "/verify", key["token"])
call("GET", "/api/me/api-keys", session)
call("DELETE", "/api/me/api-keys/" + key["id"], session)
call("GET", "/verify", key["token"])
call("POST", "/api/auth/logout", session)
call("GET", "/api/me", session)
answers[4][1] = answers[4][1].replace(key["id"], "ID")

rules = list(app.url_map.iter_rules())
for rule in rules:
    if "GET" in rule.methods and not rule.arguments:
        answer = http.get(rule.rule)
        assert answer.status_code < 500, rule
        answer.close()
print(json.dumps([answers, sorted(rule.rule for rule in rules)]))
"""
ANSWERS = [
    ["POST", "/api/auth/login", 200],
    ["POST", "/api/me/api-keys", 201],
    ["GET", "/verify", 200],
    ["GET", "/api/me/api-keys", 200],
    ["DELETE", "/api/me/api-keys/ID", 200],
    ["GET", "/verify", 401],
    ["POST", "/api/auth/logout", 200],
    ["GET", "/api/me", 401],
]
CORE = {  # the routes that are left when every extra is gone
    "/api/auth/login",
    "/api/auth/logout",
    "/api/me",
    "/api/me/api-keys",
    "/api/me/api-keys/<key_id:key_id>",
}


def without(names, here):
    """A copy of the tree without these extras and their two mentions in app.py."""
    shutil.copytree(ROOT, here, ignore=NOT_NEEDED)
    wiring = here / "app.py"
    text = wiring.read_text()
    for name in names:
        extra = here / "extras" / name
        if extra.is_dir():
            shutil.rmtree(extra)
        else:
            extra.with_suffix(".py").unlink()
        text, mentions = re.subn(MENTION.format(name), "", text, flags=re.M)
        assert mentions == 2, "it is imported, and registered"
        assert not re.search(rf"\b{name}\b", text), f"app.py mentions {name} once more"
    text = text.replace("from extras import (\n)\n", "")
    wiring.write_text(text)
    return here


def tell(here, database_url):
    """The answers of the story, and the rules of all routes, in this copy."""
    environ = {
        name: text for name, text in os.environ.items() if "LATCHKEY" not in name
    }
    settings = {"DATABASE_URL": database_url, "LATCHKEY_BCRYPT_ROUNDS": "4"}
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", STORY],
        cwd=here,
        env=environ | settings,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", EXTRAS)
def test_without_it_keys_are_made_and_revoked(name, new_database_url, tmp_path):
    here = without(TOGETHER.get(name, [name]), tmp_path / "latchkey")
    answers, rules = tell(here, new_database_url)
    assert answers == ANSWERS
    assert {*rules} >= CORE


def test_the_tables_of_a_deleted_extra_are_no_difference(new_database_url, tmp_path):
    """``flask db check`` is satisfied, and proposes to drop nothing."""
    here = without(["oidc"], tmp_path / "latchkey")
    environ = {**os.environ, "DATABASE_URL": new_database_url}
    for command in ("upgrade", "check"):
        told = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", "db", command],
            cwd=here,
            env=environ,
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stdout + told.stderr


def test_the_core_alone_is_the_service(new_database_url, tmp_path):
    answers, rules = tell(without(EXTRAS, tmp_path / "latchkey"), new_database_url)
    assert answers == ANSWERS
    assert {*rules} == CORE
