"""What a user sees when the machine fails: a lock that is held, a disk that is full, no power."""

import fcntl
import os
import re
import signal
import sqlite3
import subprocess
import time

import httpx
import psutil
import pytest
from conftest import Person
from servers import Server, prepared, program


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, which can be filled."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where])
    if mounted.returncode:
        missing = "needs the right to mount a tmpfs: run as root"
        pytest.fail(missing) if os.environ.get("CI") and os.getuid() == 0 else pytest.skip(missing)
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def start(where, log, **environ):
    """A server over a new SQLite file, Alice's session at it, and one key of hers."""
    url = f"sqlite:///{where}/latchkey.db"
    with prepared(url) as app:
        alice = Person(app, "alice")
        key = alice.key()
    return Server(url, log, **environ), alice.token, key


def test_while_another_writer_holds_sqlite_keys_verify_and_revoking_says_503(tmp_path):
    server, session, key = start(tmp_path, tmp_path / "log")
    verify, address = f"{server.url}/verify", f"{server.url}/api/me/api-keys/{key['id']}"
    writer = sqlite3.connect(tmp_path / "latchkey.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    codes = [httpx.get(verify, headers=bearer(key["token"])).status_code for _ in range(3)]
    assert codes == [200] * 3
    assert time.monotonic() - began < 3
    answer = httpx.delete(address, headers=bearer(session), timeout=30)
    assert answer.json() == {"code": 503, "message": "service unavailable", "data": {}}
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 200
    writer.execute("ROLLBACK")
    assert httpx.delete(address, headers=bearer(session)).status_code == 200
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 401
    count = "SELECT count(*) FROM audit_events WHERE event = 'revoked'"
    assert writer.execute(count).fetchall() == [(1,)]
    writer.close()
    server.stop()


def test_on_a_full_disk_keys_verify_and_revoking_changes_nothing(tmp_path, small_disk):
    server, session, key = start(small_disk, tmp_path / "log")
    verify, address = f"{server.url}/verify", f"{server.url}/api/me/api-keys/{key['id']}"
    with (small_disk / "full").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    answer = httpx.delete(address, headers=bearer(session), timeout=30)
    assert answer.json() == {"code": 500, "message": "internal server error", "data": {}}
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 200
    (small_disk / "full").unlink()
    assert httpx.delete(address, headers=bearer(session)).status_code == 200
    assert httpx.get(verify, headers=bearer(key["token"])).status_code == 401
    server.stop()


def test_a_writer_waits_its_turn_and_a_reader_does_not(tmp_path):
    """On SQLite writers queue by flock."""
    server, session, key = start(tmp_path, tmp_path / "log")
    verify, address = f"{server.url}/verify", f"{server.url}/api/me/api-keys/{key['id']}"
    mine, his = {"headers": bearer(session), "timeout": 0.5}, {"headers": bearer(key["token"])}
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
    server.stop()


def test_the_answer_to_a_revocation_follows_the_sync_to_the_disk(tmp_path):
    """Seen from outside, by strace: asked, synced, answered, in this order (SQLite)."""
    strace, trace = program("strace", "strace"), tmp_path / "trace"
    server, session, key = start(tmp_path, tmp_path / "log", WEB_CONCURRENCY="1")
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
    server.stop()
    asked = told.index("DELETE /api/me/api-keys/")
    answered = told.index('"HTTP/1.1 200', asked)
    assert re.search(r"f(data)?sync(\(\d+\)| resumed>.*\)) += 0", told[asked:answered]), told
