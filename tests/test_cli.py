"""The operator's commands, as the operator types them."""

import re

import pytest
from click.testing import CliRunner
from conftest import ago, log_in
from flask.cli import FlaskGroup
from servers import PASSWORD

from app import create_app
from models.base import writers


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
    assert flask("users", "add", "Dave", "--password-stdin", stdin="12345678\n").exit_code == 0
    try:
        assert "dave\t" in flask("users", "list").output
        assert "already" in flask("users", "add", "dave", stdin="12345678\n12345678\n").output
        assert events(sql) == ["user_added"]
    finally:
        sql("DELETE FROM users WHERE username = 'dave'")


@pytest.mark.parametrize("name, password", [("a b", "12345678"), ("x", "short"), ("x", "p" * 73)])
def test_a_bad_name_or_password_is_refused(flask, sql, name, password):
    assert flask("users", "add", name, "--password-stdin", stdin=password + "\n").exit_code == 2
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


def test_restoring_who_is_not_suspended_signs_nobody_out(flask, bob):
    assert flask("users", "restore", "bob").exit_code == 0
    assert bob.call("GET", "/api/me").status_code == 200


def test_a_new_password_ends_the_sessions_and_not_the_keys(flask, alice, verify, sql):
    key = alice.key()
    new = f"{PASSWORD}\n"
    assert flask("users", "password", "alice", "--password-stdin", stdin=new).exit_code == 0
    assert alice.call("GET", "/api/me").status_code == 401
    assert verify(key["token"]).status_code == 200
    assert "password_changed" in events(sql)
    assert "no user named zoe" in flask("users", "suspend", "zoe").output


def test_keys_are_listed_and_revoked_by_id_and_by_token(flask, alice, verify):
    one, two = alice.key(), alice.key()
    assert one["id"] in flask("keys", "list").output
    assert two["id"] in flask("keys", "list", "--user", "alice").output
    assert flask("keys", "list", "--user", "bob").output == ""
    assert flask("keys", "revoke", one["id"]).output == "revoked\n"
    assert flask("keys", "revoke", one["id"]).output == "was revoked already\n"
    assert flask("keys", "revoke", "--token-stdin", stdin=two["token"] + "\n").output == "revoked\n"
    assert "no such key" in flask("keys", "revoke", "--token-stdin", stdin="x\n").output
    assert [verify(k["token"]).status_code for k in (one, two)] == [401, 401]


def test_of_an_id_and_a_token_it_takes_one(flask, alice, verify):
    one, two = alice.key(), alice.key()
    for words in (["revoke", one["id"], "--token-stdin"], ["revoke"]):
        told = flask("keys", *words, stdin=two["token"] + "\n")
        assert told.exit_code == 2 and "one of KEY_ID and --token-stdin is needed" in told.output
    assert [verify(k["token"]).status_code for k in (one, two)] == [200, 200]


def test_a_busy_database_is_told_as_that(flask):
    with writers, writers:  # as many as may write
        told = flask("users", "suspend", "bob")
    assert (told.exit_code, told.output) == (1, "Error: the database: busy: try again\n")
    assert flask("users", "restore", "bob").exit_code == 0


def test_a_key_that_the_operator_revokes_gets_one_audit_row(flask, alice, sql):
    one, two = alice.key(), alice.key()
    for _ in range(2):
        flask("keys", "revoke", one["id"].upper())
        flask("keys", "revoke", "--token-stdin", stdin=two["token"] + "\n")
    columns = "api_key_id, user_id, reason, method, path, ip"
    rows = sql(f"SELECT {columns} FROM audit_events WHERE event = 'revoked' ORDER BY id")
    about = (one["user_id"], "operator", "CLI", "flask keys revoke", None)
    assert rows == [(one["id"], *about), (two["id"], *about)]


@pytest.mark.parametrize(
    "command, options, event, user",
    [
        ("users add", "dave --password-stdin", "user_added", "dave"),
        ("users suspend", "bob", "user_suspended", "bob"),
        ("users restore", "bob", "user_restored", "bob"),
        ("users password", "bob --password-stdin", "password_changed", "bob"),
        ("prune", "--days 3", "pruned", None),
    ],
)
def test_what_the_operator_does_is_written_down(flask, sql, command, options, event, user):
    assert flask(*f"{command} {options}".split(), stdin=PASSWORD + "\n").exit_code == 0
    columns = "event, method, path, ip, username"
    rows = sql(f"SELECT {columns} FROM audit_events LEFT JOIN users ON users.id = user_id")
    assert rows == [(event, "CLI", f"flask {command}", None, user)]


@pytest.mark.parametrize("words, days", [((), 90), (("--days", "10"), 10)])
def test_prune_takes_what_is_dead_for_longer_and_leaves_the_rest(
    flask, alice, bob, sql, words, days
):
    me = alice.call("GET", "/api/me").json["data"]["id"]
    sql("UPDATE sessions SET expires_at = :then WHERE user_id != :me", then=ago(), me=me)
    for column in ("expires_at", "revoked_at"):
        for name, age in ((f"{column} kept", days - 1), (f"{column} gone", days + 1)):
            row = {"then": ago(days=age), "id": alice.key(name=name)["id"]}
            sql(f"UPDATE api_keys SET {column} = :then WHERE id = :id", **row)
            sql("UPDATE audit_events SET created_at = :then WHERE api_key_id = :id", **row)
    alice.key(name="alive")
    told = "1 sessions, 2 audit events, 2 keys"
    assert flask("prune", *words).output == f"pruned {told}\n"
    left = ["alive", "expires_at kept", "revoked_at kept"]
    assert [row[0] for row in sql("SELECT name FROM api_keys ORDER BY name")] == left
    rows = sql("SELECT key_name, event, reason FROM audit_events ORDER BY key_name NULLS LAST")
    assert rows == [*((name, "created", None) for name in left), (None, "pruned", told)]
    assert alice.call("GET", "/api/me").status_code == 200
    assert bob.call("GET", "/api/me").status_code == 401
    assert sql("SELECT user_id FROM sessions") == [(me,)]


def test_a_database_without_tables_is_told_in_one_line(tmp_path):
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"})
    for words in (["keys", "revoke", "x"], ["users", "list"], ["prune"]):
        told = CliRunner().invoke(FlaskGroup(create_app=lambda: app, name="flask"), words)
        line = r"Error: the database: no such table: \w+ \(is DATABASE_URL right\?\)\n"
        assert told.exit_code == 1 and re.fullmatch(line, told.output)
