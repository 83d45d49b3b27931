"""No call reads a whole table: the database's own plan of every statement."""

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from conftest import Person, crowd
from flask.cli import FlaskGroup
from servers import PASSWORD, prepared

from models.database import db, utcnow
from models.key_row import READ_KEY, KeyRow
from models.verification import NOTES, times

# And what READ_KEY calls the first and the third of them.
TABLES = ("users", "sessions", "api_keys", "audit_events", "u", "k")


@pytest.fixture
def full(new_database_url):
    """An app over a database with some thousand rows in each table, and Alice in it."""
    with prepared(new_database_url) as app:
        with app.app_context():
            crowd(4000)
            db.session.execute(sa.text("ANALYZE"))
            db.session.commit()
        yield app


def verification(app):
    """The statements of /verify, which go around SQLAlchemy, with some values."""
    names = ("public", "id", "ip", "now", "minute_ago", "in_a_minute")
    values = {name: utcnow().isoformat(" ") for name in names}
    in_dialect = app.extensions["verifier"].in_dialect
    return {in_dialect(statement): values for statement in (READ_KEY, *NOTES.values())}


def plan(statement, parameters):
    """What EXPLAIN says, a string for each step."""
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
            return [row[3] for row in rows]
        # Is there an index at all?
        connection.exec_driver_sql("SET enable_seqscan = off")
        return [
            row[0]
            for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
        ]


def scans(step):
    return any(
        f"SCAN {table}" in step or f"Seq Scan on {table}" in step for table in TABLES
    )


def run_everything(app, alice, flask):
    one, two, three = (alice.key() for _ in range(3))
    keys = "/api/me/api-keys"
    trail, dates = f"{keys}/audit", "since=2026-01-01&until=2099-01-01"
    for path in (keys, trail, f"{trail}?event=created", f"{trail}?{dates}"):
        assert alice.call("GET", path).status_code == 200
    assert (
        alice.call("GET", f"{keys}/audit?api_key_id={one['id']}&page=2").status_code
        == 200
    )
    assert alice.call("DELETE", f"{keys}/{one['id']}").status_code == 200
    assert (
        alice.http.post("/oauth/revoke", data={"token": two["token"]}).status_code
        == 200
    )
    known = {"token": three["token"], "client_secret": three["token"]}
    asked = alice.http.post(
        "/oauth/introspect", data={**known, "client_id": three["key_public"]}
    )
    assert asked.json["active"]
    bearer = {"Authorization": f"Bearer {three['token']}"}
    assert alice.http.get("/metrics", headers=bearer).status_code == 200
    assert alice.call("DELETE", keys).json["data"] == {"revoked": 1}
    assert (
        flask("keys", "revoke", "--token-stdin", stdin=three["token"])
        == "was revoked already\n"
    )
    assert flask("keys", "revoke", three["id"]) == "was revoked already\n"
    assert three["key_public"] in flask("keys", "list", "--user", "alice")
    assert flask("keys", "list", "--user", "alice", "--expiring", "1").count("\n") == 1
    trail = flask("audit", "--user", "alice", "--key", three["key_public"])
    assert trail.count("revoked") == 1
    passwords = {"password": PASSWORD, "new_password": PASSWORD}
    changed = alice.call("POST", "/api/me/password", json=passwords)
    assert changed.status_code == 200
    assert alice.call("POST", "/api/auth/logout").status_code == 200
    assert "suspended" in flask("users", "suspend", "alice")
    assert flask("prune", "--days", "400").startswith("pruned 0 sessions")


def test_no_statement_reads_a_whole_table(full):
    seen = {}

    def note(connection, cursor, statement, parameters, context, many):
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            seen[statement] = parameters

    with full.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", note)

    def flask(*words, stdin=None):
        return (
            CliRunner()
            .invoke(FlaskGroup(create_app=lambda: full), words, input=stdin)
            .output
        )

    run_everything(full, Person(full, "alice"), flask)
    sa.event.remove(engine, "before_cursor_execute", note)
    seen |= verification(full)
    assert len(seen) > 20
    with full.app_context():
        plans = {text: plan(text, values) for text, values in seen.items()}
    assert {text for text, steps in plans.items() if any(map(scans, steps))} == set()


def test_the_columns_of_a_verification_are_in_the_order_of_its_row(migrated_app):
    """``KeyRow`` takes them by position."""
    verifier = migrated_app.extensions["verifier"]
    with verifier.cursor() as cursor:
        cursor.execute(verifier.in_dialect(READ_KEY), {**times(), "public": ""})
        columns = [column[0] for column in cursor.description]
        cursor.fetchall()
    assert columns == list(KeyRow._fields)
