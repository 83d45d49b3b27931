"""Does a killed key get in? Clients verify without pause while one key after another is killed.

    python -m bench.revocation [--rounds 1000] [--verifications 50000]

The start of each verification is compared with the moment the kill was acknowledged: one that
started later and was accepted is a stale accept. The clock is CLOCK_MONOTONIC, which all
processes share.
"""

import argparse
import http.client
import multiprocessing
import random
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

from servers import Postgres, Server, flask, prepared

import tokens
from models.api_key import ApiKey
from models.base import db, new_id, utcnow
from models.session import Session
from models.user import User


class Person(NamedTuple):
    name: str
    key_id: str
    key: str
    session: str


def people(app, count):
    """So many new users, each with one key and one session."""
    made, until = [], utcnow() + timedelta(days=1)
    with app.app_context():
        for _ in range(count):
            key, session = tokens.mint("lk"), tokens.mint("lks")
            person = Person(f"u.{key.public}".lower(), new_id(), key.text, session.text)
            user = User(id=new_id(), username=person.name, password_hash="-")
            row = ApiKey(id=person.key_id, user_id=user.id, name="n", mode="read")
            row.key_public, row.digest, row.expires_at = key.public, key.digest, until
            db.session.add(user)
            db.session.flush()
            db.session.add_all([row, Session(digest=session.digest, user=user, expires_at=until)])
            made.append(person)
        db.session.commit()
    return made


def call(link, method, path, token=None, form=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if form:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    link.request(method, path, form, headers)
    answer = link.getresponse()
    answer.read()
    return answer.status


def over_http(method, path, by_token=False):
    """A way to kill that answers 200 over HTTP."""

    def kill(link, server, person):
        form = f"token={person.key}" if by_token else None
        session = None if by_token else person.session
        status = call(link, method, path.format(id=person.key_id), session, form)
        assert status == 200, (method, path, status)

    return kill


def by_command(*words):
    """A way to kill that an operator types."""

    def kill(link, server, person):
        flask(server.database_url, *(word.format(**person._asdict()) for word in words))

    return kill


KEY, SESSION = ("/verify", "key"), ("/api/me", "session")  # what is asked, and with what
WAYS = {
    "DELETE /api/me/api-keys/{id}": (over_http("DELETE", "/api/me/api-keys/{id}"), KEY),
    "DELETE /api/me/api-keys": (over_http("DELETE", "/api/me/api-keys"), KEY),
    "POST /oauth/revoke": (over_http("POST", "/oauth/revoke", by_token=True), KEY),
    "POST /api/auth/logout": (over_http("POST", "/api/auth/logout"), SESSION),
    "flask keys revoke": (by_command("keys", "revoke", "{key_id}"), KEY),
    "flask users suspend (key)": (by_command("users", "suspend", "{name}"), KEY),
    "flask users suspend (session)": (by_command("users", "suspend", "{name}"), SESSION),
}


def verify(ports, persons, asked, current, pipe):
    """One client: asks about the current person on one host after the other, until told to stop."""
    path, credential = asked
    links = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports]
    seen = []
    while (n := current.value) >= 0:
        link, token = random.choice(links), getattr(persons[n], credential)
        started = time.monotonic_ns()
        status = call(link, "GET", path, token)
        seen.append((n, started, time.monotonic_ns(), status))
    pipe.send(seen)


def measure(servers, app, way, rounds, verifications, clients=8):
    """One line of the report, as a dict; times in milliseconds."""
    (kill, asked), persons = WAYS[way], people(app, rounds)
    pause = verifications / rounds / 2 / 900  # seconds on either side of a kill, at 900 a second
    current, ports = multiprocessing.Value("i", 0), [server.port for server in servers]
    pipes, processes = [], []
    for _ in range(clients):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (ports, persons, asked, current, sender)
        processes.append(multiprocessing.Process(target=verify, args=arguments, daemon=True))
        pipes.append(receiver)
        processes[-1].start()
    sent, answered = {}, {}
    links = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports]
    for n, person in enumerate(persons):
        current.value = n
        time.sleep(random.uniform(0.5, 1.5) * pause)
        host = random.randrange(len(servers))
        sent[n] = time.monotonic_ns()
        kill(links[host], servers[host], person)
        answered[n] = time.monotonic_ns()
        time.sleep(pause)
    current.value = -1
    seen = [row for pipe in pipes for row in pipe.recv()]
    for process in processes:
        process.join()
    for each in (*links, *pipes):
        each.close()
    return summary(way, seen, sent, answered)


def summary(way, seen, sent, answered):
    refused = defaultdict(list)
    for n, _, ended, status in seen:
        if status == 401:
            refused[n].append(ended)
    first = [(min(ends) - sent[n]) / 1e6 for n, ends in refused.items()]
    after = [row for row in seen if row[1] > answered[row[0]]]
    before = [row for row in seen if row[2] < sent[row[0]]]
    cuts = quantiles(first, n=100) if len(first) > 1 else [0] * 99
    return {
        "way": way,
        "rounds": len(sent),
        "verifications": len(seen),
        "after": len(after),
        "stale": sum(status != 401 for *_, status in after),
        "wrongly_refused": sum(status != 200 for *_, status in before),
        "p50": cuts[49],
        "p99": cuts[98],
    }


HEAD = """| database | way | kills | verifications | after the answer | **accepted** of these \
| refused before | sent → first refusal p50 / p99 ms |
|---|---|---|---|---|---|---|---|"""


def line(name, row):
    row = {"name": name, **row}
    return (
        "| {name} | `{way}` | {rounds:,} | {verifications:,} | {after:,} | **{stale}** | "
        "{wrongly_refused} | {p50:.1f} / {p99:.1f} |".format(**row)
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=1000)
    arguments.add_argument("--verifications", type=int, default=50_000, help="or more: at 900/s")
    told = arguments.parse_args()
    print(HEAD, flush=True)
    with TemporaryDirectory() as home:
        url = f"sqlite:///{home}/latchkey.db"
        with prepared(url) as app:
            run("SQLite, 4 workers", app, [Server(url, log(home), WEB_CONCURRENCY="4")], told)
        primary = Postgres()
        with prepared(primary.url) as app:
            hosts = [Server(primary.url, log(home)) for _ in range(2)]
            run("PostgreSQL, 2 hosts of 2 workers", app, hosts, told)
            standby = Postgres(primary)
            primary.set("synchronous_standby_names", "*")
            for commit, name in STANDBYS.items():
                primary.set("synchronous_commit", commit)
                where = {"LATCHKEY_VERIFY_DATABASE_URL": standby.url}
                hosts = [Server(primary.url, log(home), **where) for _ in range(2)]
                run(name, app, hosts, told, list(WAYS)[:1])
            primary.set("synchronous_standby_names", "")
        standby.remove()
        primary.remove()


STANDBYS = {
    "remote_apply": "PostgreSQL, verifying on a hot standby, `remote_apply`",
    "on": "the same without `remote_apply`: this sees stale accepts where there are some",
}


def log(home):
    return Path(home) / "gunicorn.log"


def run(name, app, servers, told, ways=tuple(WAYS)):
    """The first way at full length, the others shorter: the commands start a process each."""
    for way in ways:
        share = 1 if way == ways[0] else 50 if way.startswith("flask") else 10
        row = measure(servers, app, way, told.rounds // share, told.verifications // share)
        print(line(name, row), flush=True)
    for server in servers:
        server.stop()


if __name__ == "__main__":
    main()
