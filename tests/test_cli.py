"""The operator's commands, as the operator types them."""

import io
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import psycopg
import pytest
from click.testing import CliRunner
from conftest import ago, log_in
from flask.cli import FlaskGroup
from servers import PASSWORD, ROOT, disconnect

from app import create_app


@pytest.fixture
def flask(app):
    def run(*words, stdin=None):
        return CliRunner().invoke(
            FlaskGroup(create_app=lambda: app, name="flask"), words, input=stdin
        )

    return run


def events(sql):
    return [row[0] for row in sql("SELECT event FROM audit_events ORDER BY id")]


def test_add_and_list(flask, sql):
    assert (
        flask("users", "add", "Dave", "--password-stdin", stdin="12345678\n").exit_code
        == 0
    )
    try:
        assert "\ndave  " in flask("users", "list").output
        assert (
            "already"
            in flask("users", "add", "dave", stdin="12345678\n12345678\n").output
        )
        assert events(sql) == ["user_added"]
    finally:
        sql("DELETE FROM users WHERE username = 'dave'")


@pytest.mark.parametrize(
    "name, password", [("a b", "12345678"), ("x", "short"), ("x", "p" * 73)]
)
def test_a_bad_name_or_password_is_refused(flask, sql, name, password):
    assert (
        flask("users", "add", name, "--password-stdin", stdin=password + "\n").exit_code
        == 2
    )
    assert sql("SELECT count(*) FROM users WHERE username = :name", name=name) == [(0,)]


def test_suspending_kills_at_once_and_restoring_brings_back_what_was_alive(
    flask, alice, verify, sql
):
    key, dead = alice.key(), alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{dead['id']}")
    assert flask("users", "suspend", "alice").exit_code == 0
    assert verify(key["token"]).status_code == 401
    assert alice.call("GET", "/api/me").status_code == 401
    assert log_in(alice.http, "alice").status_code == 401
    assert flask("users", "restore", "alice").exit_code == 0
    assert [verify(k["token"]).status_code for k in (key, dead)] == [200, 401]
    assert {"user_suspended", "user_restored"} <= set(events(sql))
    assert alice.call("GET", "/api/me").status_code == 401


def test_suspending_and_restoring_twice_is_told_and_written_down_once(flask, sql):
    told = [flask("users", "suspend", "bob").output for _ in range(2)]
    assert told == ["bob: user suspended\n", "bob: already suspended\n"]
    told = [flask("users", "restore", "bob").output for _ in range(2)]
    assert told == ["bob: user restored\n", "bob: not suspended\n"]
    assert events(sql) == ["user_suspended", "user_restored"]


@pytest.mark.parametrize(
    "name, why",
    [
        ("a b", "a name has only a-z, 0-9 and ._@+-"),
        ("", "a name has only a-z, 0-9 and ._@+-"),
        ("x" * 65, "at most 64"),
        ("_dave", "no sign comes first"),
        ("alice", "there is a user named alice already"),
    ],
)
def test_a_bad_or_existing_name_is_refused_before_a_password_is_asked_for(
    flask, name, why
):
    told = flask("users", "add", name)
    assert told.exit_code in (1, 2)
    assert why in told.output
    assert "Password" not in told.output


def test_users_are_listed_below_a_header(flask, alice):
    flask("users", "suspend", "bob")
    header, one, two, _ = flask("users", "list").output.splitlines()
    names = ["USERNAME", "SUSPENDED_AT", "LAST_PROOF_AT", "CREATED_AT", "ID"]
    assert header.split() == names
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"alice +- +{time}  {time}  [0-9a-f-]{{36}}", one)
    assert re.match(rf"bob +{time}  ", two)


def test_restoring_who_is_not_suspended_signs_nobody_out(flask, bob):
    assert flask("users", "restore", "bob").exit_code == 0
    assert bob.call("GET", "/api/me").status_code == 200


def test_a_new_password_ends_the_sessions_and_not_the_keys(flask, alice, verify, sql):
    key = alice.key()
    new = f"{PASSWORD}\n"
    assert (
        flask("users", "password", "alice", "--password-stdin", stdin=new).exit_code
        == 0
    )
    assert alice.call("GET", "/api/me").status_code == 401
    assert verify(key["token"]).status_code == 200
    assert "password_changed" in events(sql)
    assert "no user named zoe" in flask("users", "suspend", "zoe").output


def test_keys_are_listed_and_revoked_by_id_and_by_token(flask, alice, verify):
    one, two = alice.key(), alice.key()
    assert one["key_public"] in flask("keys", "list").output
    assert two["key_public"] in flask("keys", "list", "--user", "alice").output
    assert flask("keys", "list", "--user", "bob", "--json").output == ""
    assert flask("keys", "revoke", one["id"]).output == "revoked\n"
    assert flask("keys", "revoke", one["id"]).output == "was revoked already\n"
    assert (
        flask("keys", "revoke", "--token-stdin", stdin=two["token"] + "\n").output
        == "revoked\n"
    )
    assert "no such key" in flask("keys", "revoke", "--token-stdin", stdin="x\n").output
    assert [verify(k["token"]).status_code for k in (one, two)] == [401, 401]


def test_of_an_id_and_a_token_it_takes_one(flask, alice, verify):
    one, two = alice.key(), alice.key()
    for words in (["revoke", one["id"], "--token-stdin"], ["revoke"]):
        told = flask("keys", *words, stdin=two["token"] + "\n")
        assert told.exit_code == 2
        assert "one of KEY, --token-stdin and --user is needed" in told.output
    assert [verify(k["token"]).status_code for k in (one, two)] == [200, 200]


@contextmanager
def locked(database_url):
    """Another program holds what changing a user needs."""
    if database_url.startswith("sqlite"):
        path = database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
    else:
        with psycopg.connect(database_url) as other:
            other.execute("SELECT id FROM users FOR UPDATE")
            yield


def test_a_busy_database_is_told_as_that(flask, sql, database_url):
    with locked(database_url):
        told = flask("users", "suspend", "bob")
    busy = "Error: the database is busy: try again\n"
    assert (told.exit_code, told.output) == (1, busy)
    assert sql("SELECT username FROM users WHERE suspended_at IS NOT NULL") == []
    assert flask("users", "restore", "bob").exit_code == 0


class Meanwhile(io.BytesIO):
    """Standard input that does something before it is read."""

    def __init__(self, text, act):
        super().__init__(text)
        self.act = act

    def readline(self, *size):
        self.act()
        return super().readline(*size)


def test_of_two_who_add_a_user_at_once_the_slower_is_told_that_it_exists(flask, sql):
    """Both found the name free; one reads the password when the other is done."""
    add = ("users", "add", "dave", "--password-stdin")
    codes = []

    def other():
        codes.append(flask(*add, stdin="12345678\n").exit_code)

    told = flask(*add, stdin=Meanwhile(b"another password\n", other))
    assert codes == [0]
    exists = "Error: there is a user named dave already\n"
    assert (told.exit_code, told.output) == (1, exists)
    assert events(sql) == ["user_added"]
    assert sql("SELECT count(*) FROM users WHERE username = 'dave'") == [(1,)]


def test_a_key_that_the_operator_revokes_gets_one_audit_row(flask, alice, sql):
    one, two = alice.key(), alice.key()
    for _ in range(2):
        flask("keys", "revoke", one["id"].upper())
        flask("keys", "revoke", "--token-stdin", stdin=two["token"] + "\n")
    columns = "api_key_id, user_id, reason, method, path, ip"
    rows = sql(
        f"SELECT {columns} FROM audit_events WHERE event = 'revoked' ORDER BY id"
    )
    about = (one["user_id"], "operator", "CLI", "flask keys revoke", None)
    assert rows == [(one["id"], *about), (two["id"], *about)]


@pytest.mark.parametrize(
    "command, options, event, user",
    [
        ("users add", "dave --password-stdin", "user_added", "dave"),
        ("users suspend", "bob", "user_suspended", "bob"),
        ("users password", "bob --password-stdin", "password_changed", "bob"),
        ("prune", "--days 3", "pruned", None),
    ],
)
def test_what_the_operator_does_is_written_down(
    flask, sql, command, options, event, user
):
    assert flask(*f"{command} {options}".split(), stdin=PASSWORD + "\n").exit_code == 0
    columns = "event, method, path, ip, username"
    rows = sql(
        f"SELECT {columns} FROM audit_events LEFT JOIN users ON users.id = user_id"
    )
    assert rows == [(event, "CLI", f"flask {command}", None, user)]


@pytest.mark.parametrize("words, days", [((), 90), (("--days", "10"), 10)])
def test_prune_takes_what_is_dead_for_longer_and_leaves_the_rest(
    flask, alice, bob, sql, words, days
):
    me = alice.call("GET", "/api/me").json["data"]["id"]
    sql(
        "UPDATE sessions SET expires_at = :then WHERE user_id != :me", then=ago(), me=me
    )
    for column in ("expires_at", "revoked_at"):
        for name, age in ((f"{column} kept", days - 1), (f"{column} gone", days + 1)):
            row = {"then": ago(days=age), "id": alice.key(name=name)["id"]}
            sql(f"UPDATE api_keys SET {column} = :then WHERE id = :id", **row)
            sql(
                "UPDATE audit_events SET created_at = :then WHERE api_key_id = :id",
                **row,
            )
    alice.key(name="alive")
    told = "1 sessions, 2 audit events, 2 keys"
    assert flask("prune", *words).output == f"pruned {told}\n"
    left = ["alive", "expires_at kept", "revoked_at kept"]
    assert [row[0] for row in sql("SELECT name FROM api_keys ORDER BY name")] == left
    rows = sql(
        "SELECT key_name, event, reason FROM audit_events ORDER BY key_name NULLS LAST"
    )
    assert rows == [*((name, "created", None) for name in left), (None, "pruned", told)]
    assert alice.call("GET", "/api/me").status_code == 200
    assert bob.call("GET", "/api/me").status_code == 401
    assert sql("SELECT user_id FROM sessions") == [(me,)]


OWN = [
    ["keys", "revoke", "5wJbxlJ5m1dG"],
    ["audit"],
    ["backup", "never.db"],
    ["keys", "list", "--user", "alice"],
    ["users", "list"],
    ["users", "suspend", "alice"],
    ["prune"],
]


@pytest.mark.parametrize("words", OWN, ids=" ".join)
def test_a_database_without_tables_is_told_in_one_line(new_database_url, words):
    if new_database_url.startswith("sqlite"):
        open(new_database_url.removeprefix("sqlite:///"), "x").close()
    told = run(new_database_url, words)
    if words[0] == "backup" and new_database_url.startswith("postgresql"):
        return  # it only names pg_dump
    line = r"Error: the database \S+ lacks tables: run `flask db upgrade`\n"
    assert told.exit_code == 1 and re.fullmatch(line, told.output), told.output
    assert not (ROOT / "never.db").exists()


@pytest.mark.parametrize("words", OWN, ids=" ".join)
@pytest.mark.parametrize(
    "url",
    ["sqlite:////nowhere/x.db", "postgresql://u@/d?host=/nowhere,/nowhere&port=1,2"],
    ids=["sqlite", "postgresql"],
)
def test_a_database_that_is_not_there_is_told_in_one_line(url, words):
    told = run(url, words)
    if words[0] == "backup" and url.startswith("postgresql"):
        return  # it only names pg_dump
    assert told.exit_code == 1 and told.output.startswith("Error: the database ")
    assert "DATABASE_URL" in told.output and told.output.count("\n") == 1


def run(database_url, words):
    app = create_app({"DATABASE_URL": database_url})
    group = FlaskGroup(create_app=lambda: app, name="flask")
    told = CliRunner().invoke(group, words)
    disconnect(app)
    return told


BAD_SQL = (
    "from models.database import db; db.session.execute(db.text('SELECT nothing'))"
)


@pytest.mark.live
@pytest.mark.parametrize("words, stdin", [("db upgrade", ""), ("shell", BAD_SQL)])
def test_an_error_of_alembic_or_the_shell_stays_whole(new_database_url, words, stdin):
    """Who debugs a migration needs the statement and where it came from."""
    in_the_way = "CREATE TABLE audit_events (id integer)"  # what the migration makes
    if new_database_url.startswith("sqlite"):
        path = new_database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as other:
            other.execute(in_the_way)
    else:
        with psycopg.connect(new_database_url) as other:
            other.execute(in_the_way)
    told = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *words.split()],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": new_database_url},
        input=f"{stdin}\n",
        text=True,
        capture_output=True,
    )
    assert "Traceback (most recent call last)" in told.stderr
    assert "sqlalchemy.exc." in told.stderr and "[SQL: " in told.stderr
