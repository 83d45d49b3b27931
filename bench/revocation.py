"""Does a killed key get in? Clients verify without pause while one key after another is killed.

    python -m bench.revocation [--rounds 1000] [--pause 40]

The start of each verification is compared with the moment the kill was acknowledged: one that
started later and was accepted is a stale accept. The clock is CLOCK_MONOTONIC, which all
processes share. Whatever is not as it must be is said in a line at the end, and the exit is 1.
"""

import argparse
import http.client
import multiprocessing
import random
import re
import socket
import sys
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
from servers import PASSWORD, Postgres, Server, flask, prepared

import tokens
from models.api_key import ApiKey
from models.database import db, new_id, utcnow
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
            key, session = tokens.new_token("lk"), tokens.new_token("lks")
            person = Person(f"u.{key.public}".lower(), new_id(), key.text, session.text)
            user = User(id=new_id(), username=person.name, password_hash="-")
            row = ApiKey(id=person.key_id, user_id=user.id, name="n", mode="read")
            row.key_public, row.digest, row.expires_at = key.public, key.digest, until
            db.session.add(user)
            db.session.flush()
            db.session.add_all(
                [row, Session(digest=session.digest, user=user, expires_at=until)]
            )
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


def over_http(method, path, form=None):
    """A way to kill that answers 200 over HTTP: by form where there is one, else by session."""

    def kill(link, server, person):
        link.close()  # over a new connection: any worker may be the one
        session, filled = (
            (None, form.format(**person._asdict())) if form else (person.session, "")
        )
        status = call(link, method, path.format(id=person.key_id), session, filled)
        assert status == 200, (method, path, status)

    return kill


def by_command(*words, stdin=""):
    """A way to kill that an operator types."""

    def kill(link, server, person):
        *filled, told = (word.format(**person._asdict()) for word in (*words, stdin))
        flask(server.database_url, *filled, stdin=told)

    return kill


KEY, SESSION = (
    ("/verify", "key"),
    ("/api/me", "session"),
)  # what is asked, and with what
WAYS = {
    "DELETE /api/me/api-keys/{id}": (over_http("DELETE", "/api/me/api-keys/{id}"), KEY),
    "DELETE /api/me/api-keys": (over_http("DELETE", "/api/me/api-keys"), KEY),
    "POST /oauth/revoke (key)": (
        over_http("POST", "/oauth/revoke", "token={key}"),
        KEY,
    ),
    "POST /oauth/revoke (session)": (
        over_http("POST", "/oauth/revoke", "token={session}"),
        SESSION,
    ),
    "POST /api/auth/logout": (over_http("POST", "/api/auth/logout"), SESSION),
    "flask keys revoke": (by_command("keys", "revoke", "{key_id}"), KEY),
    "flask keys revoke --token-stdin": (
        by_command("keys", "revoke", "--token-stdin", stdin="{key}"),
        KEY,
    ),
    "flask users suspend (key)": (by_command("users", "suspend", "{name}"), KEY),
    "flask users suspend (session)": (
        by_command("users", "suspend", "{name}"),
        SESSION,
    ),
    "flask users password": (
        by_command("users", "password", "{name}", "--password-stdin", stdin=PASSWORD),
        SESSION,
    ),
}


def verify(ports, persons, asked, current, pipe):
    """One client: asks about the current person on one host after the other, until told to stop."""
    path, credential = asked
    links, seen = {}, []
    while (n := current.value) >= 0:
        port, token = random.choice(ports), getattr(persons[n], credential)
        if port not in links or random.random() < 0.05:
            if port in links:
                links[port].close()
            # Opened anew, by the least busy worker: none is left out.
            links[port] = socket.create_connection(("127.0.0.1", port), timeout=30)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        started = time.monotonic_ns()
        status = ask(links[port], head.encode())
        seen.append((n, started, time.monotonic_ns(), status))
    pipe.send(seen)


def ask(link, request):
    """The status of one answer, read to its end: http.client would take the CPU of ten others."""
    link.sendall(request)
    answer = b""
    while True:
        answer += link.recv(65536) or sys.exit("a connection was closed under way")
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) == int(re.search(rb"(?i)content-length: (\d+)", head)[1]):
            return int(head[9:12])


def work(servers):
    """Seconds of CPU that each worker has used, by its process id."""
    workers = [
        each for s in servers for each in psutil.Process(s.process.pid).children()
    ]
    return {worker.pid: sum(worker.cpu_times()[:2]) for worker in workers}


def measure(servers, app, way, rounds, pause, clients=8):
    """One line of the report, as a dict; ``pause`` is the seconds on either side of a kill."""
    (kill, asked), persons = WAYS[way], people(app, rounds)
    current, ports = multiprocessing.Value("i", 0), [server.port for server in servers]
    pipes, processes, before = [], [], work(servers)
    for _ in range(clients):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (ports, persons, asked, current, sender)
        processes.append(
            multiprocessing.Process(target=verify, args=arguments, daemon=True)
        )
        pipes.append(receiver)
        processes[-1].start()
        sender.close()  # the client alone holds it: where it fails, so does the measurement
    sent, answered = {}, {}
    links = [
        http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports
    ]
    for n, person in enumerate(persons):
        current.value = n
        time.sleep(random.uniform(0.5, 1.5) * pause)
        host = random.randrange(len(servers))
        sent[n] = time.monotonic_ns()
        kill(links[host], servers[host], person)
        answered[n] = time.monotonic_ns()
        time.sleep(pause)
    current.value = -1
    spent = [seconds - before.get(pid, 0) for pid, seconds in work(servers).items()]
    seen = [row for pipe in pipes for row in pipe.recv()]
    for process in processes:
        process.join()
    for each in (*links, *pipes):
        each.close()
    return {
        **summary(way, seen, sent, answered),
        "least": 100 * min(spent) / max(sum(spent), 0.01),
    }


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
        "stale": sum(status == 200 for *_, status in after),
        "odd": sum(status not in (200, 401) for *_, status in seen),
        "wrongly_refused": sum(status != 200 for *_, status in before),
        "p50": cuts[49],
        "p99": cuts[98],
    }


def objections(row, lags=False):
    """Why this line does not hold, in words. On a standby that ``lags`` stale accepts must show:
    where there are none, this harness sees none."""
    short = row["rounds"] >= 1000 and row["verifications"] < 100_000
    checks = [
        (row["stale"] and not lags, f"{row['stale']} stale accepts"),
        (
            lags and not row["stale"],
            "no stale accept where there are some: the harness is blind",
        ),
        (
            row["wrongly_refused"] and not lags,
            f"{row['wrongly_refused']} refused before the kill",
        ),
        (row["odd"], f"{row['odd']} answers that are neither 200 nor 401"),
        (
            row["after"] < row["rounds"],
            f"{row['after']} verifications after the answers: too few",
        ),
        (short, f"{row['verifications']} verifications, not 100,000: raise --pause"),
        (
            row["least"] < 2,
            f"a worker with {row['least']:.1f} % of the work: it was left out",
        ),
    ]
    return [words for bad, words in checks if bad]


HEAD = """| database | way | kills | verifications | after the answer | **accepted** of these \
| refused before | sent → first refusal p50 / p99 ms | least worker's share |
|---|---|---|---|---|---|---|---|---|"""


def line(name, row):
    row = {"name": name, **row}
    return (
        "| {name} | `{way}` | {rounds:,} | {verifications:,} | {after:,} | **{stale}** | "
        "{wrongly_refused} | {p50:.1f} / {p99:.1f} | {least:.0f} % |".format(**row)
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=1000)
    arguments.add_argument(
        "--pause", type=float, default=40, help="ms on either side of a kill"
    )
    told = arguments.parse_args()
    print(HEAD, flush=True)
    with TemporaryDirectory() as home:
        url = f"sqlite:///{home}/latchkey.db"
        with prepared(url) as app:
            hosts = [Server(url, log(home), WEB_CONCURRENCY="4")]
            found = run("SQLite, 4 workers", app, hosts, told)
        primary = Postgres()
        with prepared(primary.url) as app:
            hosts = [Server(primary.url, log(home)) for _ in range(2)]
            found += run("PostgreSQL, 2 hosts of 2 workers", app, hosts, told)
            standby = Postgres(primary)
            standby.set("recovery_min_apply_delay", "5ms")
            primary.set("synchronous_standby_names", "*")
            for commit, name in STANDBYS.items():
                primary.set("synchronous_commit", commit)
                where = {"LATCHKEY_VERIFY_DATABASE_URL": standby.url}
                hosts = [Server(primary.url, log(home), **where) for _ in range(2)]
                some = argparse.Namespace(rounds=told.rounds // 3, pause=told.pause)
                lags = commit == "on"
                found += run(
                    name, app, hosts, some if lags else told, list(WAYS)[:1], lags
                )
            primary.set("synchronous_standby_names", "")
        standby.remove()
        primary.remove()
    sys.exit("\n".join(found) or 0)


STANDBYS = {
    "remote_apply": "PostgreSQL, verifying on a hot standby 5 ms late, `remote_apply`",
    "on": "the same without `remote_apply`: this sees stale accepts where there are some",
}


def log(home):
    return Path(home) / "gunicorn.log"


def run(name, app, servers, told, ways=tuple(WAYS), lags=False):
    """The first way at full length, the others shorter: the commands start a process each. What
    is wrong with them, in words."""
    found = []
    for way in ways:
        typed = way.startswith(
            "flask"
        )  # which starts a process: it needs some CPU, too
        rounds = told.rounds // (1 if way == ways[0] else 300 if typed else 20)
        row = measure(
            servers, app, way, max(rounds, 1), told.pause / 1000, 2 if typed else 8
        )
        print(line(name, row), flush=True)
        found += [f"{name}, {way}: {words}" for words in objections(row, lags)]
    for server in servers:
        server.stop()
    return found


if __name__ == "__main__":
    main()
