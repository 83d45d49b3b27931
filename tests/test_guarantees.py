"""The guarantees, measured for a short while; bench/ measures them for long."""

import ast
import re

import httpx
import psycopg
import pytest
from servers import ROOT, Postgres, Server, disconnect, prepared

from app import create_app
from bench import crash, revocation
from models.database import db

pytestmark = pytest.mark.live
DELETE = "DELETE /api/me/api-keys/{id}"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("way", revocation.WAYS)
def test_nothing_that_starts_after_the_answer_gets_in(app, serve, way):
    servers = [serve(WEB_CONCURRENCY="2"), serve(WEB_CONCURRENCY="2")]
    rounds = 1 if way.startswith("flask") else 20
    told = revocation.measure(servers, app, way, rounds, 0.03, clients=4)
    assert revocation.objections(told) == []


@pytest.fixture(scope="module")
def primary():
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def standby(primary):
    """A hot standby of ``primary`` which applies everything a tenth of a second late."""
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


@pytest.fixture
def verifying_on_the_standby(primary, primary_app, standby, tmp_path):
    """Start a server that verifies there, with commits that wait as long as that."""
    started = []

    def start(commit):
        primary.set("synchronous_commit", commit)
        where = {"LATCHKEY_VERIFY_DATABASE_URL": standby.url}
        started.append(Server(primary.url, tmp_path / "log", **where))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def test_keys_are_verified_on_the_standby_and_none_is_revoked_without_it(
    primary_app, standby, verifying_on_the_standby
):
    server = verifying_on_the_standby("remote_apply")
    (person,) = revocation.people(primary_app, 1)
    verify = {
        "url": f"{server.url}/verify",
        "headers": bearer(person.key),
        "timeout": 2,
    }
    with httpx.Client(base_url=server.url, headers=bearer(person.session)) as owner:
        assert httpx.get(**verify).status_code == 200
        with standby.stopped():
            assert httpx.get(**verify).status_code == 500
            assert httpx.get(f"{server.url}/healthz", timeout=2).status_code == 503
            assert owner.get("/api/me").status_code == 200  # the primary is there
            with pytest.raises(httpx.ReadTimeout):  # an answer would promise too much
                owner.delete(f"/api/me/api-keys/{person.key_id}", timeout=1)
        assert (
            owner.delete(f"/api/me/api-keys/{person.key_id}", timeout=30).status_code
            == 200
        )
        assert httpx.get(**verify).status_code == 401


def test_of_several_hosts_a_standby_is_never_asked(primary, primary_app, standby):
    """It may be late; LATCHKEY_VERIFY_DATABASE_URL alone may name one."""
    (person,) = revocation.people(primary_app, 1)
    both = f"postgresql://postgres@/postgres?host={standby.home},{primary.home}"
    app = create_app({"DATABASE_URL": both})
    http, verify = app.test_client(), {"headers": bearer(person.key)}
    assert http.get("/verify", **verify).status_code == 200
    assert http.get("/api/me", headers=bearer(person.session)).status_code == 200
    with primary.stopped():
        assert http.get("/verify", **verify).status_code == 500
    assert http.get("/verify", **verify).status_code == 200
    with psycopg.connect(standby.url) as other:
        clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        assert other.execute(clients).fetchone() == (1,)  # this one
    disconnect(app)


def test_a_note_of_use_waits_for_no_standby(primary, primary_app, standby, caplog):
    primary.set("synchronous_commit", "remote_apply")
    (person,) = revocation.people(primary_app, 1)
    with standby.stopped():
        verify = {"headers": bearer(person.key)}
        assert primary_app.test_client().get("/verify", **verify).status_code == 200
        assert "not noted" not in caplog.text
    with psycopg.connect(primary.url) as other:
        used = "SELECT last_used_at FROM api_keys WHERE id = %s"
        assert other.execute(used, [person.key_id]).fetchone() != (None,)
    with primary_app.app_context(), db.engines["notes"].connect() as connection:
        assert connection.scalar(db.text("SHOW synchronous_commit")) == "remote_apply"


def test_a_primary_that_hangs_holds_up_no_verification_on_the_standby(
    primary, primary_app, verifying_on_the_standby
):
    """One note of use waits for it; from then on it is known to hang."""
    server = verifying_on_the_standby("remote_apply")
    known, noted, *others = revocation.people(primary_app, 5)
    with httpx.Client(
        base_url=server.url
    ) as gateway:  # one connection, and so one worker
        assert gateway.get("/verify", headers=bearer(known.key)).status_code == 200
        with primary.frozen():
            told = gateway.get("/verify", headers=bearer(noted.key), timeout=2)
            assert told.status_code == 200
            for person in others:
                told = gateway.get("/verify", headers=bearer(person.key), timeout=1)
                assert told.status_code == 200
            assert gateway.get("/healthz", timeout=2).status_code == 503


@pytest.mark.parametrize("commit", ["remote_apply", "on"])
def test_a_standby_that_is_late_is_safe_with_remote_apply_and_seen_without(
    primary_app, verifying_on_the_standby, commit
):
    server = verifying_on_the_standby(commit)
    told = revocation.measure([server], primary_app, DELETE, 10, 0.03, clients=4)
    assert revocation.objections(told, lags=commit == "on") == []
    assert told["rounds"] == 10


def test_a_retry_after_a_crash_of_the_primary_promises_no_more_than_the_first_try(
    primary, primary_app, standby, verifying_on_the_standby
):
    """The crash ends the wait for the standby: the key is revoked here, and lives on there."""
    server = verifying_on_the_standby("remote_apply")
    (person,) = revocation.people(primary_app, 1)
    verify = {"url": f"{server.url}/verify", "headers": bearer(person.key)}
    with httpx.Client(base_url=server.url, headers=bearer(person.session)) as owner:
        with standby.stopped():
            for _ in range(2):
                with pytest.raises(httpx.ReadTimeout):
                    owner.delete(f"/api/me/api-keys/{person.key_id}", timeout=2)
                with primary.stopped():
                    pass
        assert (
            owner.delete(f"/api/me/api-keys/{person.key_id}", timeout=30).status_code
            == 200
        )
        assert httpx.get(**verify).status_code == 401


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


FINE = {"rounds": 1000, "verifications": 100_000, "after": 40_000, "stale": 0, "odd": 0}
FINE |= {"wrongly_refused": 0, "least": 20}
BAD = {
    "stale": 1,
    "odd": 1,
    "wrongly_refused": 1,
    "least": 1.9,
    "verifications": 99_999,
}
BAD |= {"after": 999}


@pytest.mark.parametrize("what", BAD)
def test_the_proof_objects_to(what):
    assert revocation.objections(FINE) == []
    assert len(revocation.objections({**FINE, what: BAD[what]})) == 1


def test_the_proof_objects_to_a_late_standby_without_a_stale_accept():
    assert revocation.objections({**FINE, "stale": 1}, lags=True) == []
    assert len(revocation.objections(FINE, lags=True)) == 1


@pytest.mark.parametrize("page", ["GUARANTEES.md", "ATTACKS.md"])
def test_every_test_that_a_page_names_exists(page):
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"\b(test_\w+\.py)(?:::(\w+))?", text)
    assert len(named) > 15
    for file, test in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert test in {getattr(node, "name", None) for node in tree.body}, (file, test)
