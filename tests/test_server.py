"""What only the real thing shows: several workers, and hosts, over one database."""

import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from statistics import median
from threading import Barrier, Event

import bcrypt
import httpx
import psutil
import psycopg
import pytest
from conftest import Person
from servers import PASSWORD, ROOT, Postgres, Server, disconnect, first_of, prepared

from app import create_app
from models.api_key import ApiKey
from models.audit_event import Origin
from models.database import db
from models.user import User
from tokens import new_token

pytestmark = pytest.mark.live
REVOKED = {"code": 200, "message": "api key revoked successfully", "data": {}}
GONE = {"code": 503, "message": "service unavailable", "data": {}}


@pytest.fixture
def http():
    """A client with a connection for each request: any worker may get it."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(timeout=30, limits=limits) as client:
        yield client


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def at_once(ask, urls):
    """The answers, each asked for in a thread of its own at the same moment."""
    gate = Barrier(len(urls))
    with ThreadPoolExecutor(len(urls)) as pool:
        return list(pool.map(lambda url: (gate.wait(), ask(url))[1], urls))


@pytest.fixture(scope="module")
def hosts(migrated_app, database_url, tmp_path_factory):
    """Two hosts over one database.

    Attempts under way count as failed ones. The throttle is not this fixture's matter.
    """
    logs = tmp_path_factory.mktemp("hosts")
    many = {"LATCHKEY_LOGIN_FAILURES": "1000"}
    servers = [Server(database_url, logs / f"{n}.log", **many) for n in range(2)]
    yield servers
    for server in servers:
        server.stop()


def test_it_works_and_one_host_kills_what_the_other_made(app, hosts):
    one, other = (host.url for host in hosts)
    with httpx.Client(base_url=one) as http:
        who = {"username": "alice", "password": PASSWORD}
        session = http.post("/api/auth/login", json=who).json()["data"]["token"]
        http.headers["Authorization"] = f"Bearer {session}"
        wanted = {"name": "script", "mode": "read", "password": PASSWORD}
        key = http.post("/api/me/api-keys", json=wanted).json()["data"]
        verify = {"url": f"{other}/verify", "headers": bearer(key["token"])}
        assert httpx.get(**verify).status_code == 200
        assert http.delete(f"/api/me/api-keys/{key['id']}").json() == REVOKED
        assert httpx.get(**verify).status_code == 401


def create_at_once(http, hosts, session, count):
    """The statuses of so many creations at once, on each host half of them.

    Who is told to come again (503) does, one after the other, until all have a verdict.
    """
    wanted = {"name": "script", "mode": "read", "password": PASSWORD}

    def create(url):
        answer = http.post(url, json=wanted, headers=bearer(session))
        assert answer.status_code != 503 or answer.headers["Retry-After"] == "1"
        return answer.status_code

    urls = [f"{host.url}/api/me/api-keys" for host in hosts]
    codes = at_once(create, urls * (count // len(urls)))
    busy = codes.count(503)
    assert busy < count
    again = [create(urls[n % len(urls)]) for n in range(busy)]
    return [code for code in codes if code != 503] + again


def test_thirty_creates_at_once_on_two_hosts_stop_at_the_limit(hosts, alice, http, sql):
    codes = create_at_once(http, hosts, alice.token, 30)
    assert sorted(codes) == [201] * 5 + [409] * 25
    assert sql("SELECT count(*) FROM api_keys") == [(5,)]
    events = sql("SELECT event, count(*) FROM audit_events GROUP BY event")
    assert events == [("created", 5)]


def test_with_the_throttle_as_it_comes_thirty_creates_at_once_give_five_keys_too(
    serve, alice, http, sql
):
    """Ten attempts under way pass it: five make a key, five find the limit reached."""
    codes = create_at_once(http, [serve(), serve()], alice.token, 30)
    assert codes.count(201) == 5
    assert codes.count(409) >= 5
    assert set(codes) <= {201, 409, 429}
    assert sql("SELECT count(*) FROM api_keys") == [(5,)]
    events = sql("SELECT event, count(*) FROM audit_events GROUP BY event")
    assert events == [("created", 5)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_log_ins_on_postgresql_are_numbered_one_after_the_other(hosts, postgresql):
    """The throttle counts lower numbers: none of those may be committed later."""
    who = {"username": "alice", "password": PASSWORD}
    with psycopg.connect(postgresql) as other:
        other.execute("SELECT pg_advisory_xact_lock(1)")
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{hosts[0].url}/api/auth/login", json=who, timeout=1)
    assert httpx.post(f"{hosts[0].url}/api/auth/login", json=who).status_code == 200


def test_fifty_revocations_at_once_are_one(hosts, alice, http, sql):
    key = alice.key()
    urls = [f"{host.url}/api/me/api-keys/{key['id']}" for host in hosts] * 25

    def revoke(url):
        answer = http.delete(url, headers=bearer(alice.token))
        return answer.status_code, answer.json()

    assert at_once(revoke, urls) == [(200, REVOKED)] * 50
    first = sql("SELECT revoked_at FROM api_keys")
    assert first[0][0] and revoke(urls[0]) == (200, REVOKED)
    assert sql("SELECT revoked_at FROM api_keys") == first
    assert sql("SELECT count(*) FROM audit_events WHERE event = 'revoked'") == [(1,)]


@pytest.fixture
def many_keys(app, monkeypatch):
    """Sixty keys of Alice's: their tokens by id."""
    monkeypatch.setitem(app.config, "LATCHKEY_MAX_ACTIVE_KEYS", 60)
    with app.app_context():
        user = User.by_name("alice")
        origin = Origin(None, "POST", "/")
        made = [
            ApiKey.create(user, origin, name=f"key {n}", mode="read") for n in range(60)
        ]
        db.session.commit()
        return {key.id: key.token for key in made}


def kill_workers(server, over, answered):
    """SIGKILL one worker after the other, until it is over; how many died.

    Each dies soon after an answer, of which a slow machine gives few.
    """
    killed = 0
    while not over.wait(random.uniform(0, 0.05)):
        answered.wait(0.3)
        answered.clear()
        if workers := psutil.Process(server.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it was dead already
                random.choice(workers).kill()
                killed += 1
    return killed


def test_killed_workers_take_no_revocation_back_and_leave_none_half_done(
    serve, alice, http, sql, many_keys
):
    server, over, answered = serve(WEB_CONCURRENCY="3"), Event(), Event()

    def revoke(key_id):
        with suppress(httpx.TransportError):  # its worker died
            url = f"{server.url}/api/me/api-keys/{key_id}"
            code = http.delete(url, headers=bearer(alice.token)).status_code
            answered.set()
            return code

    with ThreadPoolExecutor(9) as pool:
        killer = pool.submit(kill_workers, server, over, answered)
        codes = list(pool.map(revoke, many_keys))
        over.set()
    assert killer.result() > 2 and codes.count(200) > 2 and set(codes) <= {200, None}
    time.sleep(0.3)  # a dead worker's last COMMIT may still be under way in PostgreSQL
    told = {key_id for key_id, code in zip(many_keys, codes, strict=True) if code}
    dead = {
        row.id for row in sql("SELECT id FROM api_keys WHERE revoked_at IS NOT NULL")
    }
    audited = sql("SELECT api_key_id FROM audit_events WHERE event = 'revoked'")
    assert told <= dead and sorted(row.api_key_id for row in audited) == sorted(dead)
    for key_id, token in many_keys.items():
        verdict = http.get(f"{server.url}/verify", headers=bearer(token)).status_code
        assert verdict == (401 if key_id in dead else 200)


def test_while_log_ins_are_checked_verifications_are_answered(serve, alice, http):
    server = serve(
        LATCHKEY_BCRYPT_ROUNDS="15", WEB_CONCURRENCY="1", LATCHKEY_LOGIN_FAILURES="1000"
    )
    key = alice.key()

    def guess(number):
        who = {"username": f"nobody{number}", "password": "wrong"}
        answer = http.post(f"{server.url}/api/auth/login", json=who)
        return answer.status_code, answer.headers.get("Retry-After")

    with ThreadPoolExecutor(12) as pool:
        flood = [pool.submit(guess, n) for n in range(12)]
        time.sleep(0.5)
        for _ in range(3):
            answer = http.get(
                f"{server.url}/verify", headers=bearer(key["token"]), timeout=1
            )
            assert answer.status_code == 200
        assert not all(each.done() for each in flood)
    told = [each.result() for each in flood]
    assert told.count((401, None)) in (2, 3)
    assert set(told) == {(401, None), (503, "1")}


@pytest.fixture
def dave(app):
    """Somebody whose password takes as long to check as it does by default."""
    with app.app_context():
        salt = bcrypt.gensalt(12)
        dave = User(username="dave")
        dave.password_hash = bcrypt.hashpw(PASSWORD.encode(), salt).decode()
        db.session.add(dave)
        db.session.commit()
    return Person(app, "dave")


PASSWORD_CHECKS = {
    "log in": ("/api/auth/login", {"username": "dave"}),
    "create keys": ("/api/me/api-keys", {"name": "script", "mode": "read"}),
}


@pytest.mark.parametrize("what", PASSWORD_CHECKS)
def test_while_eight_clients_give_the_right_password_verifications_are_answered(
    serve, dave, what
):
    """Without a limit they take every thread, and a verification waits a second."""
    path, wanted = PASSWORD_CHECKS[what]
    many = {"LATCHKEY_MAX_ACTIVE_KEYS": "1000", "LATCHKEY_LOGIN_FAILURES": "1000"}
    server = serve(WEB_CONCURRENCY="1", **many)
    key = dave.key()["token"]
    over = Event()

    def give_the_password(_):
        codes = []
        body = {**wanted, "password": PASSWORD}
        with httpx.Client(base_url=server.url, timeout=60) as own:
            while not over.is_set():
                answer = own.post(path, json=body, headers=bearer(dave.token))
                assert answer.status_code != 503 or answer.headers["Retry-After"] == "1"
                codes.append(answer.status_code)
        return codes

    with ThreadPoolExecutor(8) as pool:
        clients = pool.map(give_the_password, range(8))
        try:
            time.sleep(1)
            took = []
            for _ in range(15):
                began = time.monotonic()
                assert verdict(server, key, timeout=10) == 200
                took.append(time.monotonic() - began)
        finally:
            over.set()
        codes = sum(clients, [])
    done = 200 if what == "log in" else 201
    assert set(codes) == {done, 503}
    assert codes.count(done) > 2
    assert median(took) < 0.25


class Directory:
    """Where an SQLite file lives: a volume that may not be mounted yet.

    A file that is taken away later stays there for connections that have it open.
    """

    def __init__(self, path):
        self.path = path
        self.url = f"sqlite:///{path}/data/latchkey.db"
        (path / "data").mkdir()

    @contextmanager
    def stopped(self):
        (self.path / "data").rename(self.path / "away")
        yield
        (self.path / "away").rename(self.path / "data")

    def remove(self):
        pass


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request, tmp_path_factory):
    """A database that can go away, and ``key``, the token of a good key in it."""
    sqlite = request.param == "sqlite"
    own = Directory(tmp_path_factory.mktemp("volume")) if sqlite else Postgres()
    with prepared(own.url) as app:
        alice = Person(app, "alice")
        own.session, own.key = alice.token, alice.key()["token"]
    yield own
    own.remove()


def health(server, timeout=2):
    """Status and body of /healthz, which has two seconds to answer."""
    answer = httpx.get(f"{server.url}/healthz", timeout=timeout)
    return answer.status_code, answer.json()


def verdict(server, token, timeout=2):
    """The status of a verification, which has two seconds to answer."""
    headers = bearer(token)
    answer = httpx.get(f"{server.url}/verify", headers=headers, timeout=timeout)
    assert answer.content == b""
    assert answer.status_code != 503 or answer.headers["Retry-After"] == "1"
    return answer.status_code


def test_a_server_started_before_its_database_serves_when_that_is_there(
    database, tmp_path
):
    with database.stopped():
        server = Server(database.url, tmp_path / "log", ready=503)
        with_none = health(server), verdict(server, database.key)
    with_one = health(server)[0], verdict(server, database.key)
    server.stop()
    assert with_none == ((503, GONE), 503)
    assert with_one == (200, 200)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("hows", [["stopped"], ["frozen"], ["stopped", "frozen"]])
def test_while_the_database_is_gone_nobody_gets_in_and_healthz_says_so(
    database, hows, tmp_path
):
    """Gone, or hanging: over open connections, and over new ones after it was gone.

    For a new one psycopg waits two seconds at least.
    """
    server = Server(database.url, tmp_path / "log", WEB_CONCURRENCY="1")
    try:
        assert verdict(server, database.key) == 200
        for how in hows:
            timeout = 3 if how == "frozen" else 2
            with getattr(database, how)():
                assert verdict(server, database.key, timeout) == 503
                assert health(server, timeout) == (503, GONE)
                assert verdict(server, database.key, timeout) == 503
        recovered(server, database)
    finally:
        server.stop()


def recovered(server, database, seconds=5):
    """Soon everything works, three times one after the other."""
    me = {"url": f"{server.url}/api/me", "headers": bearer(database.session)}
    until, seen = time.monotonic() + seconds, []
    while seen[-3:] != [(200, 200, 200)] * 3:
        assert time.monotonic() < until, seen
        statuses = [health(server)[0], verdict(server, database.key)]
        statuses.append(httpx.get(**me, timeout=10).status_code)
        seen.append(tuple(statuses))


def ask(server, database, what):
    """One call of those below: what it was, its status, how many seconds it took."""
    session = bearer(database.session)
    form = {"token": new_token("lk").text}
    who = {"username": "alice", "password": PASSWORD}
    method, path, sent = {
        "verify": ("GET", "/verify", {"headers": bearer(database.key)}),
        "me": ("GET", "/api/me", {"headers": session}),
        "revoke": ("DELETE", "/api/me/api-keys", {"headers": session}),
        "revoke token": ("POST", "/oauth/revoke", {"data": form}),
        "log in": ("POST", "/api/auth/login", {"json": who}),
        "health": ("GET", "/healthz", {}),
    }[what]
    began = time.monotonic()
    # A connection of its own, which any worker may get.
    answer = httpx.request(method, f"{server.url}{path}", timeout=60, **sent)
    return what, answer.status_code, time.monotonic() - began


ALL = ["me", "revoke", "revoke token", "log in", "health", "verify"]
LATER = ["verify"] * 4 + ["me"] * 2
TRAFFIC = {
    # workers; what is sent when the database hangs, and eight seconds later; how many
    # seconds a verification may take then, and later
    "sessions first": ("2", ["me"] * 16 + ["verify"] * 8, LATER, 12, 5),
    "one worker": ("1", ["me"] * 16 + ["verify"] * 8, LATER, 25, 20),
    "verifications": ("2", ["verify"] * 20, ["verify"] * 20 + ["me"] * 2, 20, 15),
    "everything": ("2", ALL * 6, ["verify"] * 8 + ["me", "log in", "health"], 20, 15),
}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "workers, first, later, limit, limit_later",
    first_of(TRAFFIC.values()),
    ids=TRAFFIC,
)
def test_a_database_that_hangs_under_traffic_holds_nobody_up(
    database, tmp_path, workers, first, later, limit, limit_later
):
    """Every connection has its time limit, and sessions have a few connections only."""
    server = Server(database.url, tmp_path / "log", WEB_CONCURRENCY=workers)
    try:
        with ThreadPoolExecutor(60) as pool:

            def send(calls):
                return [pool.submit(ask, server, database, what) for what in calls]

            for _ in range(20):  # until the pools are warm
                wait(send(["verify", "me"] * 4))
            recovered(server, database)
            with database.frozen():
                waiting = send(first)
                time.sleep(8)
                waiting_later = send(later)
                at_first = [each.result() for each in waiting]
                at_last = [each.result() for each in waiting_later]
        recovered(server, database)
    finally:
        server.stop()
    for answers, seconds_allowed in ((at_first, limit), (at_last, limit_later)):
        for what, status, seconds in answers:
            if what in ("verify", "health"):
                assert status == 503 and seconds < seconds_allowed, answers
            else:
                assert status in (500, 503) and seconds < 25, answers


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("clients", [1, 8])
def test_after_a_restart_of_the_database_the_very_first_call_is_answered(
    database, tmp_path, clients
):
    """Its connections are all dead: that is no failure of the database."""
    server = Server(database.url, tmp_path / "log", WEB_CONCURRENCY="1")
    try:
        with ThreadPoolExecutor(clients) as pool:
            for path in ("verify", "me"):
                calls = [
                    pool.submit(ask, server, database, path) for _ in range(clients * 5)
                ]
                assert {each.result()[1] for each in calls} == {200}
        with database.stopped():
            pass
        assert verdict(server, database.key) == 200
        assert ask(server, database, "me")[1] == 200
    finally:
        server.stop()


SLOW = """CREATE VIEW api_keys AS
    SELECT * FROM fast WHERE (SELECT pg_sleep(3)) IS NOT NULL"""


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_database_that_was_slow_for_a_while_is_asked_again(database, tmp_path):
    """Connections are made, and what is asked over them comes too late."""
    server = Server(database.url, tmp_path / "log", WEB_CONCURRENCY="1")
    try:
        with psycopg.connect(database.url, autocommit=True) as other:
            assert verdict(server, database.key) == 200
            other.execute("ALTER TABLE api_keys RENAME TO fast")
            other.execute(SLOW)
            seen = []
            for _ in range(5):
                seen.append(verdict(server, database.key))
                time.sleep(1)
            other.execute("DROP VIEW api_keys")
            other.execute("ALTER TABLE fast RENAME TO api_keys")
        assert set(seen) == {503}
        recovered(server, database)
    finally:
        server.stop()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_second_of_two_hosts_answers_where_the_first_is_silent(database):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://postgres@/postgres?host=127.0.0.1,{database.home}&port={port},5432"
        app = create_app({"DATABASE_URL": url})
        answer = app.test_client().get("/verify", headers=bearer(database.key))
        assert answer.status_code == 200
        disconnect(app)


def test_a_port_that_is_taken_is_told_with_the_names_of_the_settings():
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
        environ = {**os.environ, "LATCHKEY_BIND": bind}
        options = {"cwd": ROOT, "env": environ, "capture_output": True, "text": True}
        ran = subprocess.run(command, **options, timeout=60)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.endswith(": see LATCHKEY_BIND and PORT")
    assert bind.partition(":")[2] in last


BAD = {"DATABASE_URL": "mysql://x", "LATCHKEY_SESSION_HOURS": "0", "PORT": "many"}
BAD |= {"WEB_CONCURRENCY": "0", "LATCHKEY_KEY_PREFIX": "Lk_", "LATCHKEY_BIND": "a:b"}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_setting_stops_the_start_with_one_line_that_names_it(name, tmp_path):
    environ = {
        **os.environ,
        "LATCHKEY_BIND": f"unix:{tmp_path}/socket",
        name: BAD[name],
    }
    command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    run = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=10
    )
    assert run.returncode != 0 and run.stdout == ""
    assert run.stderr.startswith(f"latchkey: {name} ") and run.stderr.count("\n") == 1
