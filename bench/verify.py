"""What a verification costs: the workers' CPU time per request, as a ratio to a floor.

The floor is an empty Flask view; the limit is a bare WSGI callable, without Flask. All
are served at once and measured in turn, in several rounds, because the machine's speed
drifts: a ratio is between neighbours of one round, and the median of the rounds is
printed. When one worker happens to accept all connections, half the machine idles: such
a turn is repeated.
"""

import argparse
import contextlib
import http.client
import random
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import psycopg
from servers import Postgres

from app import create_app
from bench.setup import Server, bcrypt_hash, fill, forget
from tokens import new_token

HERE = Path(__file__).parent
ALTERNATIVES = "bench.alternatives:app"
UNEVEN = 0.8  # above this share of the CPU for one worker a turn is repeated
TRIES = 10  # at most


class Target:
    """A server, and what it is asked; of each round, figures by column."""

    path = "/verify"
    scheme = "Bearer"  # before the token in Authorization

    def __init__(self, name, server, tokens, home, database=None):
        self.name, self.server, self.tokens = name, server, tokens
        self.rounds, self.repeated, self.uneven = [], 0, 0
        self.app = create_app({"DATABASE_URL": database}) if database else None
        self.file = Path(home, "".join(filter(str.isalnum, name)))
        self.file.write_text("\n".join(tokens) + "\n")

    def warm(self):
        """Each token once, one after the other: CPU µs and time in ms per request."""
        client = http.client.HTTPConnection(self.server.url[7:])
        before = self.server.cpu()
        began = time.monotonic()
        for token in self.tokens:
            head = {"Authorization": f"{self.scheme} {token}"}
            client.request("GET", self.path, headers=head)
            client.getresponse().read()
        client.close()
        took = time.monotonic() - began
        cpu = self.server.cpu() - before
        return cpu / len(self.tokens) * 1e6, took / len(self.tokens) * 1e3

    def measure(self, seconds, connections):
        """CPU in µs, requests per second, p50 and p99 in ms; then ``warm`` twice.

        The first time each key's use is noted; the second time, and under load, it was
        within the minute.
        """
        if self.app:
            forget(self.app)
        alone = [*self.warm(), *self.warm()]
        for attempt in range(TRIES):
            figures, share = self.load(seconds, connections)
            if share <= UNEVEN:
                break
            self.repeated += attempt < TRIES - 1
        else:
            self.uneven += 1
        self.rounds.append((*figures, *alone))

    def load(self, seconds, connections):
        """The figures under load, and the share of the worker that worked most."""
        before = self.server.cpu_by_process()
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s"]
        wrk.append(f"-s{HERE}/wrk.lua")
        asked = [self.file, self.path, self.scheme]
        command = [*wrk, self.server.url, "--", *asked]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        line = next(line for line in out.splitlines() if line.startswith("RESULT"))
        requests, refused, failed, p50, p99 = map(int, line.split()[1:])
        expected = requests if self.name.endswith(("revoked", "garbage")) else 0
        if failed or abs(refused - expected) > connections:
            raise SystemExit(
                f"{self.name}: {refused} refused, {failed} failed of {requests}"
            )
        spent = [now - before[pid] for pid, now in self.server.cpu_by_process().items()]
        share = max(spent) / max(sum(spent), 0.01) if len(spent) > 1 else 0
        cpu = sum(spent) / max(requests, 1) * 1e6
        return (cpu, requests / seconds, p50 / 1000, p99 / 1000), share


def targets(stack, home, sizes):
    """The floor and the limit; Latchkey on both databases by size; the alternatives."""

    def server(application, **environ):
        started = Server(application, Path(home, "gunicorn.log"), **environ)
        stack.callback(started.stop)
        return started

    database, asked = Postgres(), 1000
    stack.callback(database.remove)
    unknown = [new_token("lk").text for _ in range(asked)]
    found = [
        Target("floor: an empty Flask view", server("bench.floor:app"), unknown, home),
        Target("limit: bare WSGI callable", server("bench.floor:bare"), unknown, home),
    ]
    sqlite = f"sqlite:///{home}/%d.db"
    for name, url in (("SQLite", sqlite), ("PostgreSQL", database.url)):
        for size in sizes:
            if name == "PostgreSQL":
                create_database(url, f"keys{size}")
            here = url.replace("%d", str(size)).replace("/postgres?", f"/keys{size}?")
            good = fill(here, size, asked)
            latchkey = server("wsgi:app", DATABASE_URL=here)
            found.append(Target(f"{name}, {size:,} keys", latchkey, good, home, here))
            if size == min(sizes, key=lambda each: abs(each - 100_000)):
                dead = fill(here, size, asked, revoked=True)
                found.append(Target(f"{name}, revoked", latchkey, dead, home, here))
                garbage = [token[:-1] + "_" for token in good]
                found.append(Target(f"{name}, garbage", latchkey, garbage, home))
                orm = server(ALTERNATIVES, DATABASE_URL=here, ALTERNATIVE="orm")
                found.append(Target(f"{name}, ORM", orm, good, home, here))
    url = f"sqlite:///{home}/bcrypt.db"
    slow = fill(url, 1000, 8, hashed=bcrypt_hash)
    hashing = server(ALTERNATIVES, DATABASE_URL=url, ALTERNATIVE="bcrypt")
    return [*found, Target("SQLite, bcrypt", hashing, slow, home, url)]


def create_database(url, name):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")


def table(found, columns):
    """Each figure, and in brackets its ratio to the floor of its round; medians."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for target in found:
        cells = []
        for column, digits in columns.values():
            values = [figures[column] for figures in target.rounds]
            floor = [figures[column] for figures in found[0].rounds]
            ratio = median(v / f for v, f in zip(values, floor, strict=True))
            cells.append(f"{median(values):,.{digits}f} ({ratio:.2f})")
        lines.append(f"| {target.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


UNDER_LOAD = {
    "CPU µs/request": (0, 0),
    "requests/s": (1, 0),
    "p50 ms": (2, 2),
    "p99 ms": (3, 1),
}
ALONE = {
    "first use: CPU µs": (4, 0),
    "first use: ms": (5, 2),
    "in the same minute: CPU µs": (6, 0),
    "in the same minute: ms": (7, 2),
}


def compared(found, sizes):
    """CPU per request: more keys to the fewest, and a refused key to a good one."""
    by_name = {
        target.name: [figures[0] for figures in target.rounds] for target in found
    }
    title = "CPU µs/request, ratio in the same round"
    lines = [f"| {title} | median | quartiles |", "|---|---|---|"]
    middle = min(sizes, key=lambda each: abs(each - 100_000))
    for name in ("SQLite", "PostgreSQL"):
        pairs = [(f"{size:,} keys", f"{sizes[0]:,} keys") for size in sizes[1:]]
        pairs += [(refused, f"{middle:,} keys") for refused in ("revoked", "garbage")]
        for one, other in pairs:
            both = zip(
                by_name[f"{name}, {one}"], by_name[f"{name}, {other}"], strict=True
            )
            ratios = [mine / theirs for mine, theirs in both]
            low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            figures = f"{median(ratios):.2f} | {low:.2f} … {high:.2f}"
            lines.append(f"| {name}: {one} to {other} | {figures} |")
    return "\n".join(lines)


def repeats(found):
    turns = sum(len(target.rounds) for target in found)
    again = sum(target.repeated for target in found)
    uneven = {target.name: target.uneven for target in found if target.uneven}
    return (
        f"{turns} turns; {again} repeated, because one worker had over {UNEVEN:.0%} "
        f"of the CPU; still so after {TRIES} tries: {uneven or 'none'}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6]
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="latchkey-bench-")
        home = stack.enter_context(made)
        found = targets(stack, home, options.sizes)
        for _ in range(options.rounds):
            for target in random.sample(found, len(found)):
                target.measure(options.seconds, options.connections)
        for text in (
            table(found, UNDER_LOAD),
            table(found, ALONE),
            compared(found, options.sizes),
        ):
            print(text, end="\n\n")
        print(repeats(found))


if __name__ == "__main__":
    main()
