"""LATCHKEY_FAILOVER: what lets somebody in is confirmed by the synchronous standby."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from cluster import Cluster
from conftest import Person
from servers import Postgres, disconnect, first_of, prepared

from app import create_app
from bench import failover
from extras.failover import complain
from models.verification import Verifier
from tokens import new_token

pytestmark = pytest.mark.live
BUSY = {"code": 503, "message": "service unavailable", "data": {}}


@pytest.fixture(scope="module")
def primary():
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def migrated(primary):
    with prepared(primary.url):
        yield


@pytest.fixture(scope="module")
def standby(primary, migrated):
    server = Postgres(primary)
    yield server
    server.remove()


@pytest.fixture
def app(primary, standby):
    """An app with failover on; a commit of its primary waits for the standby."""
    primary.set("synchronous_standby_names", "*")
    wait_for_names(primary, "*")
    app = create_app(
        {
            "DATABASE_URL": primary.url,
            "LATCHKEY_FAILOVER": "1",
            "LATCHKEY_MAX_ACTIVE_KEYS": "1000",
            "LATCHKEY_BCRYPT_ROUNDS": "4",
        }
    )
    yield app
    disconnect(app)
    primary.set("synchronous_standby_names", "")


def wait_for_names(server, names):
    """A reload takes a moment to reach a backend."""
    with psycopg.connect(server.url, autocommit=True) as other:
        while other.execute("SHOW synchronous_standby_names").fetchone() != (names,):
            time.sleep(0.02)


@pytest.fixture
def alice(app):
    return Person(app, "alice")


@pytest.fixture
def key(alice):
    return alice.key()


def verify(person, token):
    headers = {"Authorization": f"Bearer {token}"}
    return person.http.get("/verify", headers=headers)


CALLS = {  # each is 200 where the server that is asked is the primary
    "verify": lambda alice, key: verify(alice, key["token"]),
    "who am I": lambda alice, key: alice.call("GET", "/api/me"),
    "list keys": lambda alice, key: alice.call("GET", "/api/me/api-keys"),
    "revoke": lambda alice, key: alice.call("DELETE", f"/api/me/api-keys/{key['id']}"),
    "introspect": lambda alice, key: alice.http.post(
        "/oauth/introspect",
        data={"token": key["token"]},
        auth=(key["key_public"], key["token"]),
    ),
    "end an unknown session": lambda alice, key: alice.http.post(
        "/oauth/revoke", data={"token": new_token("lks").text}
    ),
    "end a session": lambda alice, key: alice.http.post(
        "/oauth/revoke", data={"token": alice.token}
    ),
    "healthz": lambda alice, key: alice.http.get("/healthz"),
}


@pytest.mark.parametrize("name", CALLS)
def test_with_its_standby_it_works(alice, key, name):
    assert CALLS[name](alice, key).status_code == 200


def test_a_revoked_key_is_refused(alice, key):
    assert verify(alice, key["token"]).status_code == 200
    assert CALLS["revoke"](alice, key).status_code == 200
    assert verify(alice, key["token"]).status_code == 401
    introspected = CALLS["introspect"](alice, alice.key())
    assert introspected.json["active"] is True
    assert alice.call("POST", "/api/auth/logout").status_code == 200
    assert alice.call("GET", "/api/me").status_code == 401


@pytest.mark.parametrize("name", CALLS)
def test_without_the_standby_nobody_gets_in(alice, key, standby, name):
    """Within 1.5 seconds, and some for the way."""
    with standby.stopped():
        began = time.monotonic()
        answer = CALLS[name](alice, key)
        assert time.monotonic() - began < 4
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    if name != "verify":
        assert answer.json == BUSY
    if name not in ("revoke", "end a session"):
        assert CALLS[name](alice, key).status_code == 200  # by itself


def test_a_refusal_waits_for_nobody(alice, key, standby):
    """It lets nobody in, even if the row is old."""
    revoked = alice.key()
    assert CALLS["revoke"](alice, revoked).status_code == 200
    with standby.stopped():
        began = time.monotonic()
        assert verify(alice, revoked["token"]).status_code == 401
        assert verify(alice, key["token"][:-7] + "0" * 7).status_code == 401
        assert alice.http.get("/api/me").status_code == 401
        assert time.monotonic() - began < 1


@contextmanager
def meanwhile(action):
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(action)
        yield
        acting.result()


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize("name", ["verify", "who am I", "revoke"])
def test_a_wait_that_is_cancelled_confirms_nothing(
    alice, key, primary, standby, name, function
):
    """PostgreSQL reports success then, with a warning."""

    with standby.stopped(), meanwhile(lambda: cancel_waits(primary, function)):
        began = time.monotonic()
        assert CALLS[name](alice, key).status_code == 503
        assert time.monotonic() - began < 1.5
    if name != "revoke":
        assert CALLS[name](alice, key).status_code == 200


def cancel_waits(primary, function="pg_cancel_backend"):
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with psycopg.connect(primary.url, autocommit=True) as other:
        for _ in range(300):
            if other.execute(f"SELECT {function}(pid) {waiting}").rowcount:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waited")


def test_a_revocation_whose_own_wait_is_cancelled_is_not_answered(
    alice, key, primary, standby
):
    """The standby was there when it began, and dies before it is committed."""
    locked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(primary.url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT 1 FROM api_keys WHERE id = %s FOR UPDATE", [key["id"]])
        answer = pool.submit(CALLS["revoke"], alice, key)
        with psycopg.connect(primary.url, autocommit=True) as third:
            while not third.execute(locked).fetchall():
                time.sleep(0.02)
        with standby.stopped():
            other.rollback()
            cancel_waits(primary)
            assert answer.result().status_code == 503
    assert CALLS["revoke"](alice, key).status_code == 200


def test_a_command_says_in_one_line_that_nothing_is_confirmed(app, primary):
    runner = app.test_cli_runner()
    assert runner.invoke(args=["users", "list"]).exit_code == 0
    primary.set("synchronous_standby_names", "")
    wait_for_names(primary, "")
    told = runner.invoke(args=["users", "list"])
    assert told.exit_code == 1
    assert "no standby confirms that this is the primary" in told.output


@pytest.mark.parametrize("name", ["who am I", "revoke"])
def test_who_empties_the_setting_meanwhile_confirms_nothing(
    alice, key, primary, standby, name
):
    """PostgreSQL releases those who wait then, without a warning."""

    def empty():
        time.sleep(0.5)
        primary.set("synchronous_standby_names", "")

    with standby.stopped(), meanwhile(empty):
        assert CALLS[name](alice, key).status_code == 503


@pytest.mark.parametrize("names", ["", "ANY 1 (*)", "any 1 (*)"])
def test_where_commits_wait_for_no_standby_nobody_gets_in_and_the_log_says_why(
    alice, key, primary, caplog, names
):
    """Of a quorum (ANY) another standby than the one that confirms may be promoted."""
    primary.set("synchronous_standby_names", names)
    wait_for_names(primary, names)
    complain.cache_clear()  # other tests of this minute have complained
    for name in ("verify", "who am I", "healthz", "verify", "revoke"):
        assert CALLS[name](alice, key).status_code == 503
    told = [
        record
        for record in caplog.records
        if "synchronous_standby_names is empty" in record.getMessage()
    ]
    assert 1 <= len(told) <= 2  # a minute may have ended
    primary.set("synchronous_standby_names", "*")
    wait_for_names(primary, "*")
    assert verify(alice, key["token"]).status_code == 200


def xid(primary):
    with psycopg.connect(primary.url, autocommit=True) as other:
        (text,) = other.execute("SELECT pg_current_snapshot()::text").fetchone()
    return int(text.split(":")[1])


def test_off_it_costs_nothing(alice, key, primary):
    """No verification writes anything, nor does a session's read."""
    off = create_app({"DATABASE_URL": primary.url})
    assert type(off.extensions["verifier"]) is Verifier
    assert verify(alice, key["token"]).status_code == 200  # and noted
    http, before = off.test_client(), xid(primary)
    for path, token in (("/verify", key["token"]), ("/api/me", alice.token)):
        bearer = {"Authorization": f"Bearer {token}"}
        assert http.get(path, headers=bearer).status_code == 200
    assert xid(primary) == before
    assert CALLS["verify"](alice, key).status_code == 200
    assert xid(primary) == before + 1
    disconnect(off)


# --- the setting ----------------------------------------------------------------------

SEVERAL = "postgresql://u@h1:5432,h2:5432/d"


@pytest.mark.parametrize(
    "url, on, warned",
    [
        (SEVERAL, "", 1),
        ("postgresql:///d?host=/tmp/a,/tmp/b", "0", 1),
        ("postgresql://u:1,2@h1/d", "", 0),
        ("sqlite:////tmp/a,b.db", "", 0),
        (SEVERAL, "1", 0),
    ],
)
def test_several_hosts_without_it_are_warned_of(caplog, url, on, warned):
    create_app({"DATABASE_URL": url, "LATCHKEY_FAILOVER": on})
    assert caplog.text.count("LATCHKEY_FAILOVER") == warned


@pytest.mark.parametrize(
    "environ, words",
    [
        ({"LATCHKEY_FAILOVER": "1"}, "LATCHKEY_FAILOVER needs PostgreSQL"),
        ({"LATCHKEY_FAILOVER": "2"}, "LATCHKEY_FAILOVER must be a number from 0 to 1"),
    ],
)
def test_what_cannot_be_stops_the_start(environ, words):
    with pytest.raises(SystemExit, match=words):
        create_app(environ)


# --- a real cluster -------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.remove()


ALL = ["switchover", "Patroni hangs", *failover.SCENARIOS]


@pytest.mark.parametrize("scenario", first_of(dict.fromkeys(ALL), 2))
def test_no_revoked_key_gets_in_through_a_failover(cluster, tmp_path, scenario):
    on = {"LATCHKEY_FAILOVER": "1"}
    with prepared(cluster.url) as app:
        row = failover.measure(cluster, app, tmp_path, scenario, **on)
    assert failover.objections(row) == []


FINE = {
    "after": 1000,
    "lost": 0,
    "revocations": 100,
    "stale": 0,
    "wrongly_refused": 0,
}


@pytest.mark.parametrize(
    "what, figure",
    [
        ("stale", 1),
        ("lost", 1),
        ("wrongly_refused", 1),
        ("after", 0),
        ("revocations", 0),
    ],
)
def test_the_proof_objects(what, figure):
    assert failover.objections(FINE) == []
    assert len(failover.objections({**FINE, what: figure})) == 1


def test_the_proof_objects_to_no_stale_accept_where_there_must_be_some():
    assert failover.objections({**FINE, "stale": 1}, failover=False) == []
    assert len(failover.objections(FINE, failover=False)) == 1
