"""On SQLite writers queue by flock; readers and notes never do."""

import fcntl

import httpx
from conftest import Person
from servers import Server, prepared


def test_a_writer_waits_its_turn_and_a_reader_does_not(tmp_path):
    url = f"sqlite:///{tmp_path}/latchkey.db"
    with prepared(url) as app:
        alice = Person(app, "alice")
        key = alice.key()
    server = Server(url, tmp_path / "log")
    verify = {"headers": {"Authorization": f"Bearer {key['token']}"}, "timeout": 5}
    mine = {"headers": {"Authorization": f"Bearer {alice.token}"}, "timeout": 0.5}
    with (tmp_path / "latchkey.db-turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        assert httpx.get(f"{server.url}/verify", **verify).status_code == 200
        assert httpx.get(f"{server.url}/api/me", **mine).status_code == 200
        try:
            httpx.delete(f"{server.url}/api/me/api-keys/{key['id']}", **mine)
            raise AssertionError("it did not wait")
        except httpx.ReadTimeout:
            pass
    for _ in range(50):  # the one that waited goes on
        if httpx.get(f"{server.url}/verify", **verify).status_code == 401:
            break
    assert httpx.get(f"{server.url}/verify", **verify).status_code == 401
    server.stop()
