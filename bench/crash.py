"""Is anything lost that was answered? Keys are created and revoked; things are killed.

    python -m bench.crash [--rounds 50]

In each round a worker, gunicorn's master or PostgreSQL itself dies by SIGKILL
(PostgreSQL: an immediate shutdown) at a random moment; then all that was answered
is looked up again. Where something is lost, the exit is 1 and a line says so.
"""

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import httpx
import psutil
import sqlalchemy as sa
from servers import PASSWORD, Postgres, Server, prepared

ROOMY = {"LATCHKEY_MAX_ACTIVE_KEYS": "1000", "LATCHKEY_LOGIN_FAILURES": "1000"}
WANTED = {"name": "storm", "mode": "read", "password": PASSWORD}
CLIENTS = 4  # each has one request under way when something dies


class Ledger:
    """What the clients were answered."""

    def __init__(self):
        self.made = {}  # tokens by id
        self.asked = set()  # ids whose revocation was asked for
        self.revoked = set()  # ids whose revocation was answered
        self.unseen = 0  # keys that were created, but the answer was cut off


def client(url, session, ledger, over):
    """Create a key, revoke every second one, until told to stop.

    A lost connection is no answer.
    """
    head = {"Authorization": f"Bearer {session}"}
    keys = f"{url}/api/me/api-keys"
    while not over.is_set():
        try:
            with httpx.Client(headers=head, timeout=10) as http:
                while not over.is_set():
                    answer = http.post(keys, json=WANTED)
                    if answer.status_code != 201:
                        continue
                    key = answer.json()["data"]
                    ledger.made[key["id"]] = key["token"]
                    if random.random() < 0.5:
                        ledger.asked.add(key["id"])
                        if http.delete(f"{keys}/{key['id']}").status_code == 200:
                            ledger.revoked.add(key["id"])
        except httpx.TransportError:
            time.sleep(0.01)


def kill(what, server, postgres):
    """Kill it; the server that serves afterwards."""
    if what == "worker":
        random.choice(psutil.Process(server.process.pid).children()).kill()
    elif what == "postgres":
        postgres.stop()
        postgres.start()
    else:
        workers = psutil.Process(server.process.pid).children()
        server.process.kill()
        for worker in workers:  # as systemd does; else they would serve for a while
            worker.kill()
        server.process.wait()
        server = Server(server.database_url, server.log, **ROOMY)
    return server


def storm(server, ledger, what, postgres=None):
    """One round: the server that serves afterwards."""
    with httpx.Client(base_url=server.url) as http:
        who = {"username": "alice", "password": PASSWORD}
        session = http.post("/api/auth/login", json=who).json()["data"]["token"]
        mine = {"Authorization": f"Bearer {session}"}
        assert http.delete("/api/me/api-keys", headers=mine).status_code == 200
        ledger.__init__()
    over = Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = (client, server.url, session, ledger, over)
        clients = [pool.submit(*asked) for _ in range(CLIENTS)]
        for _ in range(1000):  # something that can be lost
            if len(ledger.revoked) > 2:
                break
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.6))
        try:
            server = kill(what, server, postgres)
            time.sleep(0.2)
        finally:
            over.set()
    for each in clients:
        each.result()  # raises what stopped it early
    return server


def lost(server, ledger):
    """What does not hold, in words; nothing, one hopes."""
    time.sleep(0.3)  # a COMMIT that a dead worker had sent may still be under way
    found, rows, created, audited = stored(server.database_url)
    revoked = {key for key, revoked_at in rows.items() if revoked_at}
    found += [f"{key} is back" for key in ledger.revoked - revoked]
    found += [f"{key} has no single audit row" for key in rows if created.get(key) != 1]
    unasked = revoked & set(ledger.made) - ledger.asked
    found += [f"{key} was revoked unasked" for key in unasked]
    for key in revoked:
        if audited.get(key) != 1:
            found.append(f"{key}: {audited.get(key)} audit rows of its revocation")
    found += [f"{key} is audited, not revoked" for key in set(audited) - revoked]
    ledger.unseen = len(set(rows) - revoked - set(ledger.made))
    if ledger.unseen > CLIENTS:
        found.append(f"{ledger.unseen} keys work that nobody was shown")
    with httpx.Client(base_url=server.url) as http:
        for key, token in ledger.made.items():
            head = {"Authorization": f"Bearer {token}"}
            status = http.get("/verify", headers=head).status_code
            if status != (401 if key in revoked else 200):
                found.append(f"{key}: {status}")
    return found


def stored(url):
    """What SQLite finds damaged; revoked_at by key; both kinds of audit rows by key."""
    engine = sa.create_engine(url.replace("sql:", "sql+psycopg:"))
    damage = []
    count = """SELECT api_key_id, count(*) FROM audit_events
        WHERE event = :event GROUP BY api_key_id"""
    with engine.connect() as database:

        def query(statement, **values):
            return database.execute(sa.text(statement), values).all()

        rows = dict(query("SELECT id, revoked_at FROM api_keys"))
        created = dict(query(count, event="created"))
        audited = dict(query(count, event="revoked"))
        if engine.name == "sqlite":
            damage = [row[0] for row in query("PRAGMA integrity_check")]
            damage.remove("ok")
    engine.dispose()
    return damage, rows, created, audited


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    columns = "rounds | keys made | revocations answered | never shown | lost"
    print(f"| database | killed | {columns} |")
    print("|---" * 7 + "|", flush=True)
    with TemporaryDirectory() as home:
        url = f"sqlite:///{home}/latchkey.db"
        broken = measure("SQLite", url, ["worker", "master"], rounds, home)
        postgres = Postgres()
        kinds = ["worker", "master", "postgres"]
        broken += measure("PostgreSQL", postgres.url, kinds, rounds, home, postgres)
        postgres.remove()
    sys.exit("\n".join(broken) or 0)


def measure(name, url, kinds, rounds, home, postgres=None):
    """So many rounds or some more, as many of each kind. What was lost, in words."""
    each, lines = -(-rounds // len(kinds)), []
    with prepared(url):
        server, ledger = Server(url, Path(home) / "gunicorn.log", **ROOMY), Ledger()
        for what in kinds:
            made, revoked, unseen, broken = 0, 0, 0, []
            for _ in range(each):
                server = storm(server, ledger, what, postgres)
                broken += lost(server, ledger)
                made, revoked = made + len(ledger.made), revoked + len(ledger.revoked)
                unseen += ledger.unseen
            row = f"| {name} | {what} | {each} | {made:,} | {revoked:,} | {unseen} |"
            print(f"{row} {len(broken)} |", flush=True)
            lines += [f"{name}, {what} killed: {words}" for words in broken]
            if not revoked:
                lines.append(f"{name}, {what} killed: no revocation was answered")
        server.stop()
    return lines


if __name__ == "__main__":
    main()
