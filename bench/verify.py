"""What a verification costs: CPU time of the workers per request, as a ratio to a bare endpoint.

Everything is served at once and measured in turn, in several rounds, because the machine's speed
drifts: a ratio is between neighbours of one round, and the median of the rounds is printed.
"""

import argparse
import contextlib
import http.client
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from servers import Postgres

from bench.setup import Server, bcrypt_hash, fill
from tokens import mint

HERE = Path(__file__).parent


class Target:
    """A server, and what it is asked."""

    def __init__(self, name, server, tokens, home):
        self.name, self.server, self.tokens, self.rounds = name, server, tokens, []
        self.file = Path(home, f"{name}.tokens".replace(" ", "-").replace(",", ""))
        self.file.write_text("\n".join(tokens) + "\n")

    def warm(self):
        """Each token once, so that what is measured is a key in use; CPU per request, in µs."""
        client, before = http.client.HTTPConnection(self.server.url[7:]), self.server.cpu()
        for token in self.tokens:
            client.request("GET", "/verify", headers={"Authorization": f"Bearer {token}"})
            client.getresponse().read()
        client.close()
        return (self.server.cpu() - before) / len(self.tokens) * 1e6

    def measure(self, seconds, connections):
        """CPU in µs, requests per second, p50 and p99 in ms."""
        self.warm()
        before = self.server.cpu()
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"-s{HERE}/wrk.lua"]
        command = [*wrk, self.server.url, "--", self.file]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        line = next(line for line in out.splitlines() if line.startswith("RESULT"))
        requests, refused, failed, p50, p99 = map(int, line.split()[1:])
        expected = requests if self.name.endswith(("revoked", "garbage")) else 0
        if failed or abs(refused - expected) > connections:
            raise SystemExit(f"{self.name}: {refused} refused, {failed} failed of {requests}")
        cpu = (self.server.cpu() - before) / max(requests, 1) * 1e6
        self.rounds.append((cpu, requests / seconds, p50 / 1000, p99 / 1000))


def targets(stack, home, sizes):
    """The floor first; then Latchkey on both databases by size; then the alternatives."""

    def server(application, **environ):
        started = Server(application, Path(home, "gunicorn.log"), **environ)
        stack.callback(started.stop)
        return started

    database, asked = Postgres(), 1000
    stack.callback(database.remove)
    postgres = database.url
    floor = Target(
        "floor", server("bench.floor:app"), [mint("lk").text for _ in range(asked)], home
    )
    found = [floor]
    for name, url in (("SQLite", f"sqlite:///{home}/%d.db"), ("PostgreSQL", postgres)):
        for size in sizes:
            if name == "PostgreSQL":
                create_database(postgres, f"keys{size}")
            here = url.replace("%d", str(size)).replace("/postgres?", f"/keys{size}?")
            good, latchkey = fill(here, size, asked), server("wsgi:app", DATABASE_URL=here)
            found.append(Target(f"{name}, {size:,} keys", latchkey, good, home))
            if size == 100_000:
                dead = fill(here, size, asked, revoked=True)
                found.append(Target(f"{name}, revoked", latchkey, dead, home))
                orm = server("bench.alternatives:app", DATABASE_URL=here, ALTERNATIVE="orm")
                found.append(Target(f"{name}, ORM", orm, good, home))
        found.append(Target(f"{name}, garbage", latchkey, [t[:-1] + "_" for t in good], home))
    url = f"sqlite:///{home}/bcrypt.db"
    slow = fill(url, 1000, 8, hashed=bcrypt_hash)
    hashing = server("bench.alternatives:app", DATABASE_URL=url, ALTERNATIVE="bcrypt")
    return [*found, Target("SQLite, bcrypt", hashing, slow, home)]


def create_database(url, name):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")


def table(found):
    """Each figure, and in brackets its ratio to the floor of the same round; medians."""
    head = "| | CPU µs/request | requests/s | p50 ms | p99 ms |\n|---|---|---|---|---|\n"
    lines = []
    for target in found:
        cells = []
        for column, digits in enumerate((0, 0, 1, 1)):
            values = [figures[column] for figures in target.rounds]
            floor = [figures[column] for figures in found[0].rounds]
            ratio = median(v / f for v, f in zip(values, floor, strict=True))
            cells.append(f"{median(values):,.{digits}f} ({ratio:.2f})")
        lines.append(f"| {target.name} | {' | '.join(cells)} |")
    return head + "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="latchkey-bench-"))
        found = targets(stack, home, options.sizes)
        first = {target.name: target.warm() for target in found}
        for _ in range(options.rounds):
            for target in found:
                target.measure(options.seconds, options.connections)
        print(table(found), "\n", first)


if __name__ == "__main__":
    main()
