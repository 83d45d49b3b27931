"""What a user sees when the machine fails: a lock that is held, a disk that is full, no power."""

import fcntl
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
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import Person
from servers import Server, disconnect, lacking, prepared, program

from app import create_app

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
    mount = ["mount", "-t", "tmpfs", "-o", f"size=1m,uid={user}", "tmpfs", where]
    if (user and not shutil.which("sudo")) or subprocess.run(
        [*sudo, *mount]
    ).returncode:
        lacking(
            "the right to mount a tmpfs: run as root, or with a sudo that does not ask"
        )
    yield where
    subprocess.run([*sudo, "umount", "-l", where], check=True)


@pytest.fixture
def start(tmp_path):
    """Start a server over a new SQLite file: it, Alice's session at it, and one key of hers."""
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
    with closing(
        sqlite3.connect(tmp_path / "latchkey.db", isolation_level=None)
    ) as connection:
        yield connection


def test_while_another_writer_holds_sqlite_keys_verify_and_revoking_says_503(
    start, other_writer
):
    server, session, key = start()
    verify, address = (
        f"{server.url}/verify",
        f"{server.url}/api/me/api-keys/{key['id']}",
    )
    other_writer.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    codes = [
        httpx.get(verify, headers=bearer(key["token"])).status_code for _ in range(3)
    ]
    assert codes == [200] * 3
    assert time.monotonic() - began < 3
    began = time.monotonic()
    answer = httpx.delete(address, headers=bearer(session), timeout=30)
    assert 4 < time.monotonic() - began < 8  # it waited for its turn
    assert answer.json() == BUSY
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 200
    other_writer.execute("ROLLBACK")
    assert httpx.delete(address, headers=bearer(session)).status_code == 200
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 401
    count = "SELECT count(*) FROM audit_events WHERE event = 'revoked'"
    assert other_writer.execute(count).fetchall() == [(1,)]


def test_a_queue_of_writers_holds_no_verification_up(start, other_writer):
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
    assert len(verified) > 10 and set(verified) == {200}
    other_writer.execute("ROLLBACK")
    assert httpx.delete(address, headers=bearer(session)).status_code == 200


def test_on_a_full_disk_keys_verify_and_revoking_changes_nothing(small_disk, start):
    server, session, key = start(small_disk)
    verify, address = (
        f"{server.url}/verify",
        f"{server.url}/api/me/api-keys/{key['id']}",
    )
    with (small_disk / "full").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    answer = httpx.delete(address, headers=bearer(session), timeout=30)
    assert answer.json() == {
        "code": 500,
        "message": "internal server error",
        "data": {},
    }
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 200
    (small_disk / "full").unlink()
    assert httpx.delete(address, headers=bearer(session)).status_code == 200
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 401


def test_a_writer_waits_its_turn_and_a_reader_does_not(start, tmp_path):
    """On SQLite writers queue by flock."""
    server, session, key = start()
    verify, address = (
        f"{server.url}/verify",
        f"{server.url}/api/me/api-keys/{key['id']}",
    )
    mine, his = (
        {"headers": bearer(session), "timeout": 0.5},
        {"headers": bearer(key["token"])},
    )
    with (tmp_path / "latchkey.db-turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        assert httpx.get(verify, **his).status_code == 200
        assert httpx.get(f"{server.url}/api/me", **mine).status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            httpx.delete(address, **mine)
    for _ in range(50):  # the one that waited goes on
        if httpx.get(verify, **his).status_code == 401:
            break
    assert httpx.get(verify, **his).status_code == 401


@pytest.fixture
def as_nobody():
    """Root becomes the user of a service, who may not write what root made; others stay."""

    def become(*files):
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for file in files:
                os.chown(file, nobody.pw_uid, nobody.pw_gid)
            os.seteuid(nobody.pw_uid)

    yield become
    os.seteuid(os.getuid())


def test_a_command_run_as_root_leaves_no_file_that_stops_a_revocation(as_nobody):
    """As SQLite does with its own files; root's umask is the usual one."""
    home = Path(tempfile.mkdtemp())
    url = f"sqlite:///{home}/latchkey.db"
    with prepared(url) as app:
        alice = Person(app, "alice")
        key = alice.key()
    turn = home / "latchkey.db-turn"
    turn.chmod(0o444)
    as_nobody(home, *(file for file in home.iterdir() if file != turn))
    service = create_app({"DATABASE_URL": url})
    address = f"/api/me/api-keys/{key['id']}"
    assert (
        service.test_client().delete(address, headers=bearer(alice.token)).status_code
        == 200
    )
    disconnect(service)
    shutil.rmtree(home)


def test_the_answer_to_a_revocation_follows_the_sync_to_the_disk(start, tmp_path):
    """Seen from outside, by strace: asked, synced, answered, in this order (SQLite)."""
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
    assert httpx.delete(address, headers=bearer(session)).status_code == 200
    tracer.send_signal(signal.SIGINT)
    tracer.wait(10)
    told = trace.read_text()
    asked = told.index("DELETE /api/me/api-keys/")
    answered = told.index('"HTTP/1.1 200', asked)
    assert re.search(
        r"f(data)?sync(\(\d+\)| resumed>.*\)) += 0", told[asked:answered]
    ), told
