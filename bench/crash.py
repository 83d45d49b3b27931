"""Is anything lost that was answered? Keys are made and revoked without pause; things are killed.

    python -m bench.crash [--rounds 50]

In each round a worker, gunicorn's master or PostgreSQL itself dies by SIGKILL (PostgreSQL: an
immediate shutdown) at a random moment; then everything that was answered is looked up again.
Where something is lost, the exit is 1 and a line says so.
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
    """What the clients were told: tokens by id, and the ids whose revocation was answered; and how
    many keys there are that nobody was told of: made, and the answer was cut off."""

    def __init__(self):
        self.made, self.asked, self.revoked, self.unseen = {}, set(), set(), 0


def client(url, session, ledger, over):
    """Make a key, revoke every second one, until told to stop. A lost connection is no answer."""
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
        for (
            worker
        ) in workers:  # as systemd does; left alone, they would serve for half a minute
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
    found, engine = (
        [],
        sa.create_engine(server.database_url.replace("sql:", "sql+psycopg:")),
    )
    with engine.connect() as database:
        rows = dict(
            database.execute(sa.text("SELECT id, revoked_at FROM api_keys")).all()
        )
        query = "SELECT api_key_id, count(*) FROM audit_events WHERE event = '{}' GROUP BY 1"
        created, audited = (
            dict(database.execute(sa.text(query.format(event))).all())
            for event in ("created", "revoked")
        )
        if engine.name == "sqlite":
            checked = (
                database.execute(sa.text("PRAGMA integrity_check")).scalars().all()
            )
            found += [row for row in checked if row != "ok"]
    engine.dispose()
    found += [f"{key} is back" for key in ledger.revoked if not rows.get(key)]
    found += [f"{key} has no single audit row" for key in rows if created.get(key) != 1]
    dead = {key for key, revoked in rows.items() if revoked}
    found += [
        f"{key}: {audited.get(key)} audit rows" for key in dead if audited.get(key) != 1
    ]
    found += [f"{key} was not revoked, the trail says" for key in set(audited) - dead]
    ledger.unseen = len(set(rows) - dead - set(ledger.made))
    if ledger.unseen > CLIENTS:
        found.append(f"{ledger.unseen} keys work that nobody was shown")
    with httpx.Client(base_url=server.url) as http:
        for key, token in ledger.made.items():
            status = verdict(http, token)
            if status != (401 if key in dead else 200) or (
                key in dead and key not in ledger.asked
            ):
                found.append(f"{key}: {status}")
    return found


def verdict(http, token):
    """A worker whose database was slow to come back leaves it alone for half a second, and says
    500 meanwhile: asked again, twice at most."""
    for _ in range(3):
        status = http.get(
            "/verify", headers={"Authorization": f"Bearer {token}"}
        ).status_code
        if status < 500:
            break
        time.sleep(0.5)
    return status


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=50)
    rounds = arguments.parse_args().rounds
    print(
        "| database | killed | rounds | keys made | revocations answered | never shown | lost |"
    )
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
    """So many rounds or some more, the same number of each kind. What was lost, in words."""
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
                lines.append(
                    f"{name}, {what} killed: no revocation was answered at all"
                )
        server.stop()
    return lines


if __name__ == "__main__":
    main()
