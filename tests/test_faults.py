"""What users see when the machine fails: a held lock, a full disk, a loss of power."""

import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import Person
from servers import Server, disconnect, flask, lacking, prepared, program

from app import create_app
from bench.revocation import people

pytestmark = pytest.mark.live
BUSY = {"code": 503, "message": "service unavailable", "data": {}}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, which can be filled."""
    where, user = tmp_path / "disk", os.getuid()
    where.mkdir()
    sudo = ["sudo", "-n"] if user else []
    needed = "mounting needs root or a sudo that does not ask: apt-get install sudo"
    if user and not shutil.which("sudo"):
        lacking(needed)
    mount = ["mount", "-t", "tmpfs", "-o", f"size=1m,uid={user}", "tmpfs", where]
    if subprocess.run([*sudo, *mount]).returncode:
        lacking(needed)
    yield where
    subprocess.run([*sudo, "umount", "-l", where], check=True)


@pytest.fixture
def start(tmp_path):
    """Start a server over a new SQLite file: it, Alice's session, and a key of hers."""
    started = []

    def start(where=tmp_path, **environ):
        url = f"sqlite:///{where}/latchkey.db"
        with prepared(url) as app:
            alice = Person(app, "alice")
            key = alice.key()
        started.append(Server(url, tmp_path / "log", **environ))
        return started[-1], alice.token, key

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def other_writer(tmp_path):
    """A connection of another program, which can hold SQLite's lock."""
    connection = sqlite3.connect(tmp_path / "latchkey.db", isolation_level=None)
    with closing(connection):
        yield connection


def test_while_another_writer_holds_sqlite_keys_verify_and_revoking_says_503(
    start, other_writer
):
    server, session, key = start()
    verify = {"url": f"{server.url}/verify", "headers": bearer(key["token"])}
    revoke = {
        "url": f"{server.url}/api/me/api-keys/{key['id']}",
        "headers": bearer(session),
    }
    other_writer.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert [httpx.get(**verify).status_code for _ in range(3)] == [200] * 3
    assert time.monotonic() - began < 3
    began = time.monotonic()
    answer = httpx.delete(**revoke, timeout=30)
    assert 4 < time.monotonic() - began < 8  # it waited for its turn
    assert answer.json() == BUSY
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert httpx.get(**verify).status_code == 200
    other_writer.execute("ROLLBACK")
    assert httpx.delete(**revoke).status_code == 200
    assert httpx.get(**verify).status_code == 401
    count = "SELECT count(*) FROM audit_events WHERE event = 'revoked'"
    assert other_writer.execute(count).fetchall() == [(1,)]


def test_a_queue_of_writers_holds_no_verification_up(start, other_writer):
    """Sessions have fewer connections than there are threads."""
    server, session, key = start()
    address = f"{server.url}/api/me/api-keys/{key['id']}"
    other_writer.execute("BEGIN IMMEDIATE")

    def revoke(_):
        answer = httpx.delete(address, headers=bearer(session), timeout=20)
        return answer.status_code, answer.headers.get("Retry-After"), answer.json()

    with ThreadPoolExecutor(10) as pool:
        queue, verified = [pool.submit(revoke, n) for n in range(10)], []
        while not all(each.done() for each in queue):
            answer = httpx.get(
                f"{server.url}/verify", headers=bearer(key["token"]), timeout=5
            )
            verified.append(answer.status_code)
            time.sleep(0.05)
    assert [each.result() for each in queue] == [(503, "1", BUSY)] * 10
    assert len(verified) > 5 and set(verified) == {200}
    other_writer.execute("ROLLBACK")
    assert httpx.delete(address, headers=bearer(session)).status_code == 200


def test_eight_clients_that_revoke_at_once_are_all_answered_200(start, other_writer):
    """SQLite lets one write after the other, each in some milliseconds."""
    server, *_ = start()
    app = create_app({"DATABASE_URL": server.database_url})
    persons = people(app, 8 * 20)
    disconnect(app)

    def revoke(mine):
        statuses = []
        with httpx.Client(base_url=server.url, timeout=20) as http:
            for person in mine:
                path = f"/api/me/api-keys/{person.key_id}"
                answer = http.delete(path, headers=bearer(person.session))
                statuses.append(answer.status_code)
        return statuses

    with ThreadPoolExecutor(8) as pool:
        statuses = sum(pool.map(revoke, [persons[n::8] for n in range(8)]), [])
    assert statuses == [200] * len(persons)
    count = "SELECT count(*) FROM audit_events WHERE event = 'revoked'"
    assert other_writer.execute(count).fetchall() == [(len(persons),)]


def test_on_a_full_disk_keys_verify_and_revoking_changes_nothing(small_disk, start):
    server, session, key = start(small_disk)
    verify = {"url": f"{server.url}/verify", "headers": bearer(key["token"])}
    revoke = {
        "url": f"{server.url}/api/me/api-keys/{key['id']}",
        "headers": bearer(session),
    }
    with (small_disk / "full").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    failed = {"code": 500, "message": "internal server error", "data": {}}
    assert httpx.delete(**revoke, timeout=30).json() == failed
    assert httpx.get(**verify).status_code == 200
    (small_disk / "full").unlink()
    assert httpx.delete(**revoke).status_code == 200
    assert httpx.get(**verify).status_code == 401


@pytest.fixture
def as_nobody():
    """Root becomes the user of a service; others stay who they are."""

    def become(*files):
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for file in files:
                os.chown(file, nobody.pw_uid, nobody.pw_gid)
            os.seteuid(nobody.pw_uid)

    yield become
    os.seteuid(os.getuid())


@pytest.mark.parametrize("runs", ["while it serves", "before it starts"])
def test_a_command_run_as_root_leaves_no_file_that_stops_a_revocation(as_nobody, runs):
    """Not even under root's umask 077: what is root's, the service may not write."""
    home = Path(tempfile.mkdtemp())
    url = f"sqlite:///{home}/latchkey.db"
    with prepared(url) as app:
        alice = Person(app, "alice")
        key = alice.key()
        verify = {"headers": bearer(key["token"])}
    service = create_app({"DATABASE_URL": url})
    if runs == "while it serves":
        as_nobody(home, *home.iterdir())
        assert service.test_client().get("/verify", **verify).status_code == 200
        os.seteuid(os.getuid())
    umask = os.umask(0o077)
    flask(url, "users", "suspend", "bob")
    flask(url, "prune")
    os.umask(umask)
    if runs == "before it starts":
        as_nobody(home, home / "latchkey.db")
    else:
        as_nobody()
    address = f"/api/me/api-keys/{key['id']}"
    answer = service.test_client().delete(address, headers=bearer(alice.token))
    assert answer.status_code == 200
    assert service.test_client().get("/verify", **verify).status_code == 401
    disconnect(service)
    shutil.rmtree(home)


def test_the_answer_to_a_revocation_follows_the_sync_to_the_disk(start, tmp_path):
    """Seen from outside, by strace: asked, synced, answered, in this order (SQLite).

    Also for a call that changes nothing: the first one's worker may have died before
    its sync.
    """
    strace, trace = program("strace", "strace"), tmp_path / "trace"
    server, session, key = start(WEB_CONCURRENCY="1")
    (worker,) = psutil.Process(server.process.pid).children()
    calls = "trace=fsync,fdatasync,recvfrom,sendto"
    tracer = subprocess.Popen(
        [strace, "-f", "-s", "40", "-e", calls, "-o", trace, "-p", str(worker.pid)]
    )
    for _ in range(100):
        httpx.get(f"{server.url}/healthz")
        if trace.exists() and "GET /healthz" in trace.read_text():
            break
        time.sleep(0.05)
    address = f"{server.url}/api/me/api-keys/{key['id']}"
    for _ in range(2):
        assert httpx.delete(address, headers=bearer(session)).status_code == 200
    tracer.send_signal(signal.SIGINT)
    tracer.wait(10)
    _, *revocations = trace.read_text().split("DELETE /api/me/api-keys/")
    assert len(revocations) == 2
    for calls in revocations:
        answered = calls.index('"HTTP/1.1 200')
        synced = r"f(data)?sync(\(\d+\)| resumed>.*\)) += 0"
        assert re.search(synced, calls[:answered]), calls
