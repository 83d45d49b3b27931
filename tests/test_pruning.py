"""flask prune: in batches, each with a commit of its own: it holds nobody up."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

import httpx
import psycopg
import pytest
from click.testing import CliRunner
from conftest import PASSWORD, Person, log_in
from flask.cli import FlaskGroup
from servers import ROOT, first_of
from sqlalchemy import event

from bench.setup import FILL, insert
from extras.maintenance import prune
from models.api_key import ApiKey
from models.audit_event import Origin
from models.database import db
from models.user import User

# So many rows, which are nobody's any more; {user} is Alice's id.
OLD = {
    "audit_events": """INSERT INTO audit_events
        (created_at, event, user_id, method, path, ip)
        {n} SELECT '2020-01-01 00:00:00', 'login_failed', '{user}', 'POST', '/',
            '203.0.113.1' FROM n""",
    "sessions": """INSERT INTO sessions (digest, user_id, created_at, expires_at)
        {n} SELECT {digest}, '{user}', '2020-01-01 00:00:00', '2020-01-02 00:00:00'
        FROM n""",
    "api_keys": """INSERT INTO api_keys
        (id, user_id, name, key_public, digest, mode, created_at, expires_at)
        {n} SELECT 'old' || i, '{user}', 'old', {public}, {digest}, 'read',
            '2020-01-01 00:00:00', '2020-01-02 00:00:00' FROM n""",
}
IN_WORDS = {"audit_events": "audit events", "sessions": "sessions", "api_keys": "keys"}


def fill(app, table, count, before_commit=lambda: None):
    with app.app_context():
        user = User.by_name("alice").id
        n, (public, digest) = FILL[db.engine.dialect.name]
        made = OLD[table].format(n=n, user=user, public=public, digest=digest)
        insert(made, count)
        before_commit()
        db.session.commit()


@pytest.fixture
def flask(app):
    def run(*words):
        group = FlaskGroup(create_app=lambda: app, name="flask")
        return CliRunner().invoke(group, words)

    return run


@pytest.fixture
def other(database_url):
    """A connection of another program, which commits each statement."""
    if database_url.startswith("sqlite"):
        path = database_url.removeprefix("sqlite:///")
        options = {"isolation_level": None, "check_same_thread": False}
        connection = sqlite3.connect(path, **options)
    else:
        connection = psycopg.connect(database_url, autocommit=True)
    with closing(connection):
        yield connection


@pytest.fixture
def left(other):
    """How many rows of a table others see: what is not committed they do not."""
    return lambda table: other.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.fixture
def pause(monkeypatch):
    """Batches of ten rows, and what to do in the pause after each."""

    def set_up(act):
        monkeypatch.setattr(prune, "BATCH", 10)
        monkeypatch.setattr(prune.time, "sleep", lambda seconds: act())

    return set_up


@pytest.mark.parametrize("table", OLD)
def test_each_batch_is_committed_before_the_next_begins(app, flask, left, pause, table):
    fill(app, table, 95)
    before, seen = left(table) - 95, []
    pause(lambda: seen.append(left(table) - before))
    told = flask("prune")
    counts = {name: 95 if name == table else 0 for name in OLD}
    words = [f"{counts[name]} {IN_WORDS[name]}" for name in ("sessions", *OLD)]
    words = dict.fromkeys(words)  # in the order that is printed, each once
    assert told.output == f"pruned {', '.join(words)}\n"
    now = [left_over + (table == "audit_events") for left_over in range(85, 0, -10)]
    assert seen == [*now, 0 + (table == "audit_events")]


@pytest.mark.parametrize("table", OLD)
def test_in_each_pause_a_revocation_and_a_log_in_go_through_at_once(
    app, alice, flask, pause, sql, table
):
    fill(app, table, 45)
    keys = iter([alice.key() for _ in range(5)])
    codes, took = [], []

    def work():
        began = time.monotonic()
        key = next(keys)
        path = f"/api/me/api-keys/{key['id']}"
        codes.append(alice.call("DELETE", path).status_code)
        codes.append(log_in(app.test_client(), "alice").status_code)
        took.append(time.monotonic() - began)

    pause(work)
    assert flask("prune").exit_code == 0
    assert codes == [200] * 10
    assert max(took) < 1
    alive = "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL"
    assert sql(alive) == [(0,)]


@pytest.mark.parametrize("table", OLD)
def test_what_was_cut_short_stays_done_and_is_written_down(
    app, flask, pause, sql, left, table
):
    fill(app, table, 45)
    others = left(table) - 45
    pauses = []

    def cut_short():
        pauses.append(1)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    pause(cut_short)
    told = flask("prune", "--days", "30")
    assert told.exit_code == 1
    rows = sql("SELECT reason FROM audit_events WHERE event = 'pruned'")
    assert rows == [("30 days, not completed",)]
    written = 1 if table == "audit_events" else 0
    assert left(table) == others + 25 + written
    pause(lambda: None)
    assert flask("prune", "--days", "30").exit_code == 0
    assert left(table) == others + 2 * written
    rows = sql("SELECT reason FROM audit_events WHERE event = 'pruned' ORDER BY id")
    assert len(rows) == 2
    assert f"25 {IN_WORDS[table]}" in rows[1][0]


@pytest.mark.parametrize("table", OLD)
def test_a_dry_run_counts_what_would_go_and_deletes_nothing(
    app, flask, left, sql, table
):
    fill(app, table, 45)
    before = {name: left(name) for name in OLD}
    told = flask("prune", "--dry-run", "--days", "30")
    assert told.exit_code == 0
    assert told.output.startswith("would prune ")
    assert f"45 {IN_WORDS[table]}" in told.output
    assert {name: left(name) for name in OLD} == before
    assert sql("SELECT count(*) FROM audit_events WHERE event = 'pruned'") == [(0,)]
    assert flask("prune", "--days", "30").output == told.output.removeprefix(
        "would "
    ).replace("prune", "pruned", 1)


def test_with_nothing_to_prune_it_says_so_at_once(flask, pause, sql):
    pauses = []
    pause(lambda: pauses.append(1))
    told = flask("prune")
    assert told.output == "pruned 0 sessions, 0 audit events, 0 keys\n"
    assert pauses == []
    rows = sql("SELECT event, reason FROM audit_events")
    assert rows == [("pruned", "0 sessions, 0 audit events, 0 keys")]


@pytest.mark.parametrize("days", ["0", "-1", "36501", "x", "1.5", ""])
def test_a_bad_number_of_days_prunes_nothing(app, flask, left, days):
    fill(app, "audit_events", 3)
    assert flask("prune", "--days", days).exit_code == 2
    assert left("audit_events") == 3


def test_of_two_at_once_each_row_is_deleted_by_one(app, flask, pause, left):
    fill(app, "audit_events", 95)
    told = []

    def other():
        pause(lambda: None)
        with ThreadPoolExecutor(1) as pool:  # in an app context of its own
            told.append(pool.submit(flask, "prune").result())

    pause(other)
    told.append(flask("prune"))
    assert [each.exit_code for each in told] == [0, 0]
    words = [each.output.split(", ")[1] for each in told]
    assert words == ["85 audit events", "10 audit events"]
    assert left("audit_events") == 2  # of both runs


def test_a_writer_that_is_slow_stops_it_in_one_line_and_what_is_done_stays(
    app, flask, pause, left, other, database_url
):
    fill(app, "audit_events", 45)
    lock = ["BEGIN IMMEDIATE"]
    if database_url.startswith("postgresql"):
        lock = ["BEGIN", "LOCK TABLE audit_events"]

    def hold():
        if left("audit_events") == 16:
            for statement in lock:
                other.execute(statement)

    pause(hold)
    told = flask("prune")
    other.execute("ROLLBACK")
    busy = "Error: the database is busy: try again\n"
    assert (told.exit_code, told.output) == (1, busy)
    assert left("audit_events") == 16
    pause(lambda: None)
    assert flask("prune").exit_code == 0
    assert left("audit_events") == 2  # of both runs


@pytest.fixture
def many_keys(app, monkeypatch):
    """The ids of two hundred keys of Alice's."""
    monkeypatch.setitem(app.config, "LATCHKEY_MAX_ACTIVE_KEYS", 200)
    with app.app_context():
        user, origin = User.by_name("alice"), Origin(None, "POST", "/")
        made = [
            ApiKey.create(user, origin, name=f"key {n}", mode="read")
            for n in range(200)
        ]
        db.session.commit()
        return [key.id for key in made]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("table", OLD)
def test_statistics_from_before_the_table_grew_make_no_batch_slow(
    app, flask, other, many_keys, monkeypatch, table
):
    """Autovacuum leaves such ones when it comes while rows are not committed yet.

    A join of the table with the chosen rows then compares each with each: over five
    seconds for one batch of 30,000 keys.
    """
    monkeypatch.setattr(prune, "PAUSE", 0)
    fill(app, table, 2_000, lambda: other.execute(f"ANALYZE {table}"))
    plans = []

    def explain(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(f"DELETE FROM {table}"):
            steps = other.execute(f"EXPLAIN {statement}", parameters).fetchall()
            plans.append("\n".join(step for (step,) in steps))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", explain)
    try:
        told = flask("prune")
    finally:
        event.remove(engine, "before_cursor_execute", explain)
    assert told.exit_code == 0
    assert f"2000 {IN_WORDS[table]}" in told.output
    assert plans
    assert not [plan for plan in plans if "Loop" in plan or "Join" in plan]


def start_prune(database_url):
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "prune"]
    environ = {**os.environ, "DATABASE_URL": database_url}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environ, **pipes)


def every(seconds, over, act):
    """Do it again and again until it is over; the results."""
    results = []
    while not over.wait(seconds):
        results.append(act())
    return results


@pytest.mark.live
@pytest.mark.parametrize("table", first_of(OLD))
def test_while_it_runs_every_revocation_and_log_in_goes_through(
    app, serve, sql, left, database_url, many_keys, table
):
    fill(app, table, 30_000)
    token = Person(app, "alice").token
    url, over, keys = serve().url, Event(), iter(many_keys)

    def revoke():
        headers = {"Authorization": f"Bearer {token}"}
        path = f"{url}/api/me/api-keys/{next(keys)}"
        return httpx.delete(path, headers=headers, timeout=30).status_code

    def sign_in():
        who = {"username": "alice", "password": PASSWORD}
        return httpx.post(f"{url}/api/auth/login", json=who, timeout=30).status_code

    with ThreadPoolExecutor(3) as pool:
        prune = start_prune(database_url)
        watched = [
            pool.submit(every, 0.05, over, revoke),
            pool.submit(every, 0.05, over, sign_in),
            pool.submit(every, 0.05, over, lambda: left(table)),
        ]
        told, errors = prune.communicate(timeout=120)
        over.set()
        revoked, signed_in, counts = (each.result() for each in watched)
    assert (prune.returncode, errors) == (0, "")
    assert f"30000 {IN_WORDS[table]}" in told
    assert len(revoked) > 5 and set(revoked) == {200}
    assert len(signed_in) > 5 and set(signed_in) == {200}
    steps = {count // 1000 for count in counts}
    assert len(steps) > 5  # others saw it go on, a batch at a time
    dead = "SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL"
    assert sql(dead) == [(len(revoked),)]


@pytest.mark.live
def test_killed_in_the_middle_it_holds_no_lock_and_goes_on_where_it_was(
    app, alice, left, database_url
):
    fill(app, "audit_events", 10_000)
    key = alice.key()
    process = start_prune(database_url)
    while left("audit_events") > 9_000:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    assert alice.call("DELETE", f"/api/me/api-keys/{key['id']}").status_code == 200
    assert time.monotonic() - began < 2
    assert 100 < left("audit_events") <= 9_002
    told, errors = start_prune(database_url).communicate(timeout=60)
    assert errors == "" and told.startswith("pruned ")
    assert left("audit_events") == 4  # created, revoked, and pruned twice
