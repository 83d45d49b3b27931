"""The guarantees, measured for a short while; bench/ measures them for long."""

import ast
import re
import time

import httpx
import psycopg
import pytest
from servers import ROOT, Postgres, Server, disconnect, first_of, prepared

from app import create_app
from bench import crash, revocation
from models.database import db

pytestmark = pytest.mark.live
DELETE = "DELETE /api/me/api-keys/{id}"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("way", first_of(revocation.WAYS))
def test_nothing_that_starts_after_the_answer_gets_in(app, serve, way):
    servers = [serve(WEB_CONCURRENCY="2"), serve(WEB_CONCURRENCY="2")]
    rounds = 1 if way.startswith("flask") else 20
    row = revocation.measure(servers, app, way, rounds, 0.03, clients=4)
    assert revocation.objections(row) == []


def test_verdicts_that_are_cached_for_a_moment_would_be_seen(app, serve):
    server = serve(application="bench.alternatives:app", ALTERNATIVE="cache")
    row = revocation.measure([server], app, DELETE, 10, 0.03, clients=4)
    assert row["stale"] > 0
    assert revocation.objections(row, cached=True) == []


@pytest.fixture(scope="module")
def primary():
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def standby(primary):
    """A hot standby of ``primary`` that applies everything 0.1 seconds late."""
    server = Postgres(primary)
    server.set("recovery_min_apply_delay", "100ms")
    primary.set("synchronous_standby_names", "*")
    yield server
    primary.set("synchronous_standby_names", "")
    server.remove()


@pytest.fixture(scope="module")
def primary_app(primary):
    with prepared(primary.url) as app:
        yield app


def test_of_several_hosts_a_standby_is_never_asked(primary, primary_app, standby):
    """It may be late."""
    (person,) = revocation.people(primary_app, 1)
    both = f"postgresql://postgres@/postgres?host={standby.home},{primary.home}"
    app = create_app({"DATABASE_URL": both})
    http, verify = app.test_client(), {"headers": bearer(person.key)}
    assert http.get("/verify", **verify).status_code == 200
    assert http.get("/api/me", headers=bearer(person.session)).status_code == 200
    with primary.stopped():
        assert http.get("/verify", **verify).status_code == 503
    assert http.get("/verify", **verify).status_code == 200
    with psycopg.connect(standby.url) as other:
        clients = """SELECT count(*) FROM pg_stat_activity
            WHERE backend_type = 'client backend'"""
        assert other.execute(clients).fetchone() == (1,)  # this one
    disconnect(app)


def test_a_note_of_use_waits_for_no_standby(primary, primary_app, standby, caplog):
    """Nobody was promised it; a commit that waits would keep a connection busy."""
    primary.set("synchronous_commit", "remote_apply")
    (person,) = revocation.people(primary_app, 1)
    with standby.stopped():
        began = time.monotonic()
        verify = {"headers": bearer(person.key)}
        assert primary_app.test_client().get("/verify", **verify).status_code == 200
        assert time.monotonic() - began < 1
        assert "not noted" not in caplog.text
        with psycopg.connect(primary.url) as other:
            used = "SELECT last_used_at FROM api_keys WHERE id = %s"
            assert other.execute(used, [person.key_id]).fetchone() != (None,)
    with primary_app.app_context(), db.engine.connect() as connection:
        assert connection.scalar(db.text("SHOW synchronous_commit")) == "remote_apply"


@pytest.mark.parametrize(
    "path",
    first_of(["/api/me/api-keys/{key_id}", "/api/me/api-keys", "/oauth/revoke"]),
)
def test_a_revocation_is_answered_when_the_standby_has_it_and_not_before(
    primary, primary_app, standby, tmp_path, path
):
    """Nor is a retry: a crash of the primary ends the wait of the first try.

    The key is revoked here then, and would live on there.
    """
    primary.set("synchronous_commit", "remote_apply")
    (person,) = revocation.people(primary_app, 1)
    server = Server(primary.url, tmp_path / "log")
    revoke = {
        "method": "POST" if path == "/oauth/revoke" else "DELETE",
        "url": server.url + path.format(key_id=person.key_id),
        "data": {"token": person.key} if path == "/oauth/revoke" else None,
        "headers": {} if path == "/oauth/revoke" else bearer(person.session),
        "timeout": 30,
    }
    verify = {"url": f"{server.url}/verify", "headers": bearer(person.key)}
    revoked = "SELECT revoked_at IS NOT NULL FROM api_keys WHERE id = %s"
    try:
        assert httpx.get(**verify).status_code == 200
        with standby.stopped():
            for _ in range(2):
                assert httpx.request(**revoke).status_code in (500, 503)
                with primary.stopped():
                    pass
        assert httpx.request(**revoke).status_code == 200
        with psycopg.connect(standby.url) as other:
            assert other.execute(revoked, [person.key_id]).fetchone() == (True,)
        assert httpx.get(**verify).status_code == 401
    finally:
        server.stop()


@pytest.mark.parametrize("what", ["worker", "master"])
def test_nothing_is_lost_that_was_answered(serve, what):
    server, ledger = serve(**crash.ROOMY), crash.Ledger()
    server = crash.storm(server, ledger, what)
    try:
        assert len(ledger.revoked) > 2
        assert crash.lost(server, ledger) == []
    finally:
        server.stop()


@pytest.fixture
def postgres():
    server = Postgres()
    yield server
    server.remove()


def test_nothing_is_lost_that_was_answered_before_postgresql_died(postgres, tmp_path):
    ledger = crash.Ledger()
    with prepared(postgres.url):
        server = Server(postgres.url, tmp_path / "log", **crash.ROOMY)
        try:
            crash.storm(server, ledger, "postgres", postgres)
            assert len(ledger.revoked) > 2
            assert crash.lost(server, ledger) == []
        finally:
            server.stop()


FINE = {
    "rounds": 1000,
    "verifications": 100_000,
    "after": 40_000,
    "stale": 0,
    "odd": 0,
    "wrongly_refused": 0,
    "least": 20,
}
BAD = {
    "verifications": 99_999,
    "after": 999,
    "stale": 1,
    "odd": 1,
    "wrongly_refused": 1,
    "least": 1.9,
}


@pytest.mark.parametrize("what", BAD)
def test_the_proof_objects_to(what):
    assert revocation.objections(FINE) == []
    assert len(revocation.objections({**FINE, what: BAD[what]})) == 1
    repeated = revocation.objections({**FINE, what: BAD[what]}, repeated=True)
    assert len(repeated) == (what != "verifications")


def test_the_proof_objects_to_a_cache_without_a_stale_accept():
    assert revocation.objections({**FINE, "stale": 1}, cached=True) == []
    assert len(revocation.objections(FINE, cached=True)) == 1


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_every_test_that_a_page_names_exists(page):
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"\b(test_\w+\.py)(?:::(\w+))?", text)
    assert len(named) > 15
    for file, test in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert test in {getattr(node, "name", None) for node in tree.body}, (file, test)
