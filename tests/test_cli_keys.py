"""flask keys: named by what people see, listed, and made without a browser."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from conftest import ago
from flask.cli import FlaskGroup

import tokens

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def flask(app):
    def run(*words, stdin=None):
        group = FlaskGroup(create_app=lambda: app, name="flask")
        return CliRunner().invoke(group, words, input=stdin)

    return run


# --- revoke ---------------------------------------------------------------------------

NAMES = {
    "as the page shows it": "lk_{public}",
    "with the page's dots": "lk_{public}\u2026",
    "with three dots": "lk_{public}...",
    "as a log shows it": "lk_{public}_...",
    "the public part": "{public}",
    "the whole token": "{token}",
    "a token cut short": "{cut}",
    "the UUID": "{id}",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_key_is_revoked_by_what_people_see(flask, alice, verify, name):
    key, other = alice.key(), alice.key()
    public, token = key["key_public"], key["token"]
    named = name.format(public=public, token=token, cut=token[:40], id=key["id"])
    told = flask("keys", "revoke", named)
    assert (told.exit_code, told.output) == (0, "revoked\n")
    assert verify(token).status_code == 401
    assert verify(other["token"]).status_code == 200
    assert flask("keys", "revoke", named).output == "was revoked already\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key["key_public"][:-1],
        lambda key: f"lk_{key['key_public'][:-1]}",
        lambda key: f"{key['key_public']}x",
        lambda key: f"-{key['key_public']}",
        lambda key: f"LK_{key['key_public']}",
        lambda key: f"lk_{key['key_public'].swapcase()}",
        lambda key: key["token"][16:],
        lambda key: "%",
        lambda key: "",
    ],
)
def test_nothing_else_is_that_key_and_no_secret_is_repeated(
    flask, alice, verify, change
):
    key = alice.key()
    told = flask("keys", "revoke", "--", change(key))
    assert told.exit_code != 0
    assert told.output.splitlines()[-1].startswith("Error: ")
    assert key["token"][16:36] not in told.output
    assert verify(key["token"]).status_code == 200


def test_the_hint_names_what_it_looked_for_and_where(flask, app, database_url):
    token = tokens.new_token("lk")
    for named in (token.text, f"lk_{token.public}"):
        told = flask("keys", "revoke", named)
        assert told.exit_code == 1
        assert told.output.startswith(f"Error: no such key: {token.public} is not in ")
        assert told.output.count("\n") == 1
        assert token.text[16:] not in told.output
    told = flask("keys", "list", "--user", "zoe")
    assert "no user named zoe in " in told.output
    if database_url.startswith("sqlite"):
        assert database_url in told.output


@pytest.mark.parametrize(
    "url, shown",
    [
        ("postgresql://me:hunter2@db.example/keys", "postgresql://db.example/keys"),
        ("postgresql://me:hunter2@a:1,b:2/keys", "postgresql://a:1,b:2/keys"),
        ("postgresql://me:h%40nter2@[::1]/keys", "postgresql://[::1]/keys"),
        ("postgresql:///keys?user=me&password=hunter2", "postgresql:///keys"),
        ("postgresql://h/keys?sslpassword=hunter2", "postgresql://h/keys"),
        ("sqlite:////srv/a@b/latchkey.db", "sqlite:////srv/a@b/latchkey.db"),
    ],
)
def test_a_database_is_named_without_its_password(flask, app, monkeypatch, url, shown):
    monkeypatch.setitem(app.config, "DATABASE_URL", url)
    told = flask("keys", "revoke", "5wJbxlJ5m1dG")
    assert told.output == f"Error: no such key: 5wJbxlJ5m1dG is not in {shown}\n"


def test_all_of_one_users_keys_are_revoked_at_once(flask, alice, bob, verify, sql):
    keys = [alice.key()["token"] for _ in range(3)]
    other = bob.key()["token"]
    told = flask("keys", "revoke", "--user", "Alice")
    assert (told.exit_code, told.output) == (0, "3 keys revoked\n")
    assert [verify(token).status_code for token in keys] == [401, 401, 401]
    assert verify(other).status_code == 200
    rows = sql("SELECT reason FROM audit_events WHERE event = 'revoked'")
    assert rows == [("operator",)] * 3
    assert flask("keys", "revoke", "--user", "alice").output == "0 keys revoked\n"


@pytest.mark.parametrize("name", ["", "zoe", "%", "ali"])
def test_without_such_a_user_nothing_is_revoked_or_shown(flask, alice, verify, name):
    token = alice.key()["token"]
    assert flask("keys", "revoke", "--user", name).exit_code == 2
    assert verify(token).status_code == 200
    for words in (["keys", "list"], ["audit"]):
        told = flask(*words, "--user", name)
        assert (told.exit_code, told.stdout) == (2, "")


def test_a_key_and_a_user_are_not_taken_together(flask, alice, bob, verify):
    key = alice.key()
    told = flask("keys", "revoke", key["id"], "--user", "bob")
    assert told.exit_code == 2
    assert verify(key["token"]).status_code == 200


def test_a_token_from_standard_input_needs_the_right_secret(flask, alice, verify):
    """Reports of leaked tokens may be piped: nobody's key dies by a forged one."""
    key = alice.key()
    body = f"lk_{key['key_public']}_{'x' * 43}"
    for forged in (body + tokens.checksum(body), f"lk_{key['key_public']}"):
        told = flask("keys", "revoke", "--token-stdin", stdin=forged)
        wrong = f"no such key: {key['key_public']} has another secret"
        assert (told.exit_code, told.output) == (1, f"Error: {wrong}\n")
    assert verify(key["token"]).status_code == 200


# --- list -----------------------------------------------------------------------------


def test_keys_are_listed_below_a_header(flask, alice, bob, verify):
    key = alice.key(name="back up")
    verify(key["token"])
    gone = bob.key()
    bob.call("DELETE", f"/api/me/api-keys/{gone['id']}")
    header, one, two = flask("keys", "list").output.splitlines()
    names = ["KEY_PUBLIC", "USERNAME", "MODE", "STATUS", "CREATED_AT", "EXPIRES_AT"]
    assert header.split() == [*names, "LAST_USED_AT", "NAME"]
    row = rf"{key['key_public']}  alice +read  active +{TIME}  {TIME}  {TIME}  back up"
    assert re.fullmatch(row, one)
    row = rf"{gone['key_public']}  bob +read  revoked +{TIME}  {TIME}  - +script"
    assert re.fullmatch(row, two)
    assert header.index("NAME", 40) == one.index("back up") == two.index("script")


def test_in_json_a_key_has_the_fields_of_the_api(flask, alice):
    alice.key(name="\u65e5\u672c\n\x1b[31m")
    [listed] = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"]
    [line] = flask("keys", "list", "--json").output.splitlines()
    assert line.isascii()
    assert json.loads(line) == listed | {"username": "alice"}
    [line] = flask("users", "list", "--json").output.splitlines()[:1]
    user = alice.call("GET", "/api/me").json["data"]
    assert json.loads(line).items() >= user.items()


@pytest.mark.parametrize(
    "name, shown",
    [
        ("caf\u00e9 \u65e5\u672c", "caf\u00e9 \u65e5\u672c"),
        ("a\nlk_faked  bob", r"a\nlk_faked  bob"),
        ("\x1b[2Jx\x07", r"\x1b[2Jx\x07"),
        ("x\x9b31m", r"x\x9b31m"),
        ("exe\u202egnp", r"exe\u202egnp"),
        ("a\u2028b\x85c\x7f", r"a\u2028b\x85c\x7f"),
        ("a\u200bb", r"a\u200bb"),
        ('it\'s "so"', 'it\'s "so"'),
    ],
)
def test_a_name_stays_on_its_line_and_moves_no_cursor(flask, alice, name, shown):
    alice.key(name=name)
    lines = flask("keys", "list").output.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith(f"  {shown}")
    assert flask("audit").output.splitlines()[1].endswith(f"  {shown}")


def test_what_expires_soon_makes_the_exit_1(flask, alice, bob):
    soon = alice.key(expires_in_days=7)
    alice.key(expires_in_days=60)
    revoked = bob.key(expires_in_days=7)
    bob.call("DELETE", f"/api/me/api-keys/{revoked['id']}")
    told = flask("keys", "list", "--expiring", "7")
    assert told.exit_code == 1
    [line] = told.output.splitlines()[1:]
    assert line.startswith(soon["key_public"])
    for words in (["--expiring", "6"], ["--expiring", "7", "--user", "bob"]):
        told = flask("keys", "list", *words, "--json")
        assert (told.exit_code, told.output) == (0, "")


def test_an_expired_key_does_not_expire_soon(flask, alice, sql):
    sql("UPDATE api_keys SET expires_at = :then", then=ago(days=1))
    key = alice.key()
    then = ago(days=1)
    sql("UPDATE api_keys SET expires_at = :t WHERE id = :id", t=then, id=key["id"])
    assert flask("keys", "list", "--expiring", "30").exit_code == 0
    assert "  expired  " in flask("keys", "list").output


# --- create ---------------------------------------------------------------------------


def test_a_service_gets_its_key_without_a_browser(flask, alice, verify, sql):
    told = flask("keys", "create", "Alice", "deploy", "--mode", "write", "--days", "30")
    assert (told.exit_code, told.stderr) == (0, "")
    token = told.stdout.removesuffix("\n")
    assert tokens.parse(token, "lk")
    answer = verify(token, "/verify?scope=write")
    assert (answer.status_code, answer.headers["X-User-Name"]) == (200, "alice")
    [key] = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"]
    assert (key["name"], key["mode"]) == ("deploy", "write")
    assert sql("SELECT event, reason, method, path, ip FROM audit_events") == [
        ("created", "operator", "CLI", "flask keys create", None)
    ]


@pytest.mark.parametrize(
    "words, why",
    [
        (["alice", "", "--mode", "read"], "a name has 1 to 100 characters"),
        (["alice", " \u200b", "--mode", "read"], "one of them visible"),
        (["alice", "x" * 101, "--mode", "read"], "a name has 1 to 100 characters"),
        (["alice", "caf\udce9", "--mode", "read"], "a name has 1 to 100 characters"),
        (["alice", "x", "--mode", "read", "--days", "0"], "--days is from 1 to 365"),
        (["alice", "x", "--mode", "read", "--days", "366"], "--days is from 1 to 365"),
        (["alice", "x", "--mode", "admin"], "'read', 'write'"),
        (["alice", "x"], "--mode"),
        (["zoe", "x", "--mode", "read"], "no user named zoe"),
    ],
)
def test_a_bad_key_is_refused_in_words(flask, sql, words, why):
    told = flask("keys", "create", *words)
    assert (told.exit_code, told.stdout) == (2, "")
    assert why in told.stderr
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]
    assert sql("SELECT count(*) FROM audit_events") == [(0,)]


def test_a_suspended_user_gets_no_key(flask, sql):
    flask("users", "suspend", "bob")
    told = flask("keys", "create", "bob", "x", "--mode", "read")
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == "Error: bob is suspended\n"
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]


def test_of_many_at_once_no_more_than_the_limit_get_a_key(flask, alice, sql):
    make = ("keys", "create", "alice", "x", "--mode", "read")
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda _: flask(*make).exit_code, range(9)))
    assert sorted(codes) == [0] * 5 + [1] * 4
    assert sql("SELECT count(*) FROM api_keys") == [(5,)]
    told = flask(*make)
    full = "Error: alice has 5 active keys already\n"
    assert (told.stdout, told.stderr) == ("", full)
