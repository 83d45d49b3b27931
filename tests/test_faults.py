"""What a user sees when the machine fails: a lock that is held, a disk that is full."""

import os
import sqlite3
import subprocess
import time

import httpx
import pytest
from conftest import Person
from servers import Server, prepared


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


def start(where, log):
    """A server over a new SQLite file, Alice's session at it, and one key of hers."""
    url = f"sqlite:///{where}/latchkey.db"
    with prepared(url) as app:
        alice = Person(app, "alice")
        key = alice.key()
    return Server(url, log), alice.token, key


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
