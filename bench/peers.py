"""Latchkey beside what people would use instead: what verifying and revoking cost.

    python -m bench.peers [--rounds 9] [--keys 100000]

All are served at once and asked in turn, as bench/verify.py does it: a ratio is between
neighbours of one round, and the median of the rounds is printed. The peers come from
PyPI, in the versions of bench/peers.txt, into .venv/peers.
"""

import argparse
import http.client
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlencode

import psutil

from bench.peer_servers import LATCHKEY, Peers, install, versions
from bench.verify import Target, repeats

ASKED = 1000  # keys that are verified in turn
CLIENTS = 4  # that revoke at once
TIMES = "a second | p50 ms | p99 ms | PostgreSQL's CPU µs"


class Peer(Target):
    """A line of the tables, and what was measured of it, round by round."""

    def __init__(self, served, home):
        super().__init__(
            served.name, served.server, served.tokens, home, served.database
        )
        self.calls = served.calls
        self.path, self.scheme = served.calls.verify, served.calls.scheme
        self.doomed = served.doomed
        self.postgres = served.postgres
        self.patience = served.patience
        self.revocations = []  # figures as those of ``rounds``

    def postgres_cpu(self):
        """Seconds of CPU that PostgreSQL's processes have used; 0 if it has none."""
        if self.postgres is None:
            return 0
        pid = int((self.postgres.data / "postmaster.pid").read_text().split()[0])
        main = psutil.Process(pid)
        return sum(sum(each.cpu_times()[:2]) for each in (main, *main.children()))

    def load(self, seconds, connections):
        """The figures under load, PostgreSQL's CPU the last; and the uneven share."""
        seconds *= self.patience
        before = self.postgres_cpu()
        figures, share = super().load(seconds, connections)
        spent = self.postgres_cpu() - before
        requests = max(figures[1] * seconds, 1)
        return (*figures, spent / requests * 1e6), share

    def revoke(self, count):
        """Revoke so many tokens, by some clients at once; each is refused then."""
        tokens, self.doomed = self.doomed[:count], self.doomed[count:]
        assert len(tokens) == count
        cpu, database = self.server.cpu(), self.postgres_cpu()
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            parts = [tokens[n::CLIENTS] for n in range(CLIENTS)]
            took = sum(pool.map(self.revoke_in_turn, parts), [])
        rate = count / (time.monotonic() - began)
        cpu, database = self.server.cpu() - cpu, self.postgres_cpu() - database
        cuts = quantiles(took, n=100)
        micros = cpu / count * 1e6, database / count * 1e6
        self.revocations.append((micros[0], rate, cuts[49], cuts[98], micros[1]))
        self.see_refused(tokens)

    def revoke_in_turn(self, tokens):
        """One client; milliseconds of each revocation."""
        link, took = http.client.HTTPConnection(self.server.url[7:]), []
        for token in tokens:
            head, form = {"Authorization": f"{self.scheme} {token}"}, None
            if self.calls is LATCHKEY:
                head = {"Content-Type": "application/x-www-form-urlencoded"}
                form = urlencode({"token": token})
            began = time.monotonic()
            link.request("POST", self.calls.revoke, form, head)
            answer = link.getresponse()
            answer.read()
            took.append((time.monotonic() - began) * 1000)
            assert answer.status in (200, 204), (self.name, answer.status)
        link.close()
        return took

    def see_refused(self, tokens):
        link = http.client.HTTPConnection(self.server.url[7:])
        for token in tokens:
            head = {"Authorization": f"{self.scheme} {token}"}
            link.request("GET", self.path, headers=head)
            answer = link.getresponse()
            answer.read()
            assert answer.status in (401, 403), (self.name, answer.status)
        link.close()


def verifications(peers):
    """The first table; all ratios are of CPU."""
    print(f"| a verification | CPU µs | to the floor | to Latchkey | {TIMES} |")
    print("|---" * 8 + "|")
    for peer in peers:
        to_floor = median(ratios(peer.rounds, peers[0].rounds))
        to_rival = with_quartiles(ratios(peer.rounds, rival(peer, peers).rounds))
        print(line(peer, peer.rounds, f"{to_floor:,.2f}", to_rival))


def revocations(peers):
    """The second table, of those that revoke."""
    print(f"| a revocation | CPU µs | to Latchkey | {TIMES} |")
    print("|---" * 7 + "|")
    for peer in peers:
        other = rival(peer, peers).revocations
        to_rival = with_quartiles(ratios(peer.revocations, other))
        print(line(peer, peer.revocations, to_rival))


def rival(peer, peers):
    """Latchkey as it ships, on the same database, or else on SQLite."""
    database = "PostgreSQL" if peer.postgres else "SQLite"
    return next(each for each in peers if each.name == f"Latchkey, {database}")


def ratios(figures, others):
    return [one[0] / other[0] for one, other in zip(figures, others, strict=True)]


def with_quartiles(values):
    if len(values) == 1:
        return f"{values[0]:,.2f}"
    low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{median(values):,.2f} ({low:,.2f} … {high:,.2f})"


def line(peer, figures, *compared):
    columns = list(zip(*figures, strict=True))[:5]
    cpu, rate, p50, p99, postgres = map(median, columns)
    cells = [peer.name, f"{cpu:,.0f}", *compared]
    cells += [f"{rate:,.0f}", f"{p50:,.2f}", f"{p99:,.1f}"]
    cells.append(f"{postgres:,.0f}" if peer.postgres else "")
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--keys", type=int, default=100_000, help="of each peer")
    parser.add_argument("--revocations", type=int, default=400, help="in each round")
    options = parser.parse_args()
    install()
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as made:
        home = Path(made)
        doomed = options.revocations * options.rounds
        servers = Peers(home, options.keys, ASKED, doomed)
        with servers.started:
            peers = [Peer(served, home) for served in servers.all()]
            for _ in range(options.rounds):
                for peer in random.sample(peers, len(peers)):
                    peer.measure(options.seconds, options.connections)
            revoking = [peer for peer in peers if peer.doomed]
            for _ in range(options.rounds):
                for peer in random.sample(revoking, len(revoking)):
                    peer.revoke(options.revocations)
    verifications(peers)
    print()
    revocations(revoking)
    print(f"\n{versions()}. {repeats(peers)}")


if __name__ == "__main__":
    main()
