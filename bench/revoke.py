"""How long a revocation takes with 8 clients at once on SQLite, and what the writers' queue does.

    python -m bench.revoke [--rounds 7] [--each 200]

Latchkey as it ships, and without ``take_turns`` of models/base.py, in turn over one database.
"""

import argparse
import contextlib
import http.client
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from servers import prepared

from bench.revocation import call, people
from bench.setup import Server

CLIENTS = 8
VARIANTS = {
    "SQLite's own waiting": ("bench.alternatives:app", {"ALTERNATIVE": "waiting"}),
    "writers queue, as shipped": ("wsgi:app", {}),
}


def revoke(port, persons):
    """One client: milliseconds of each revocation."""
    link, took = http.client.HTTPConnection("127.0.0.1", port), []
    for person in persons:
        began = time.monotonic()
        status = call(
            link, "DELETE", f"/api/me/api-keys/{person.key_id}", person.session
        )
        assert status == 200, status
        took.append((time.monotonic() - began) * 1000)
    link.close()
    return took


def measure(server, persons):
    """p50 and p99 in ms, and revocations a second."""
    began = time.monotonic()
    parts = [persons[n::CLIENTS] for n in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = sum(pool.map(revoke, [server.port] * CLIENTS, parts), [])
    rate, cuts = len(took) / (time.monotonic() - began), quantiles(took, n=100)
    return cuts[49], cuts[98], rate


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--each", type=int, default=200, help="revocations of each client a round"
    )
    told = parser.parse_args()
    found = {name: [] for name in VARIANTS}
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(TemporaryDirectory(prefix="latchkey-bench-"))
        url, servers = f"sqlite:///{home}/latchkey.db", {}
        app = stack.enter_context(prepared(url))
        for name, (application, environ) in VARIANTS.items():
            servers[name] = Server(
                application, Path(home, "log"), DATABASE_URL=url, **environ
            )
            stack.callback(servers[name].stop)
            measure(servers[name], people(app, CLIENTS))
        for _ in range(told.rounds):
            for name in random.sample(list(VARIANTS), len(VARIANTS)):
                found[name].append(
                    measure(servers[name], people(app, CLIENTS * told.each))
                )
    print("| | p50 ms | p99 ms | revocations/s |\n|---|---|---|---|")
    for name, rounds in found.items():
        p50, p99, rate = map(median, zip(*rounds, strict=True))
        worst = max(figures[1] for figures in rounds)
        print(f"| {name} | {p50:.1f} | {p99:.1f} (at most {worst:.1f}) | {rate:,.0f} |")
    pairs = list(zip(*reversed(found.values()), strict=True))
    ratios = [median(ours[i] / own[i] for ours, own in pairs) for i in range(3)]
    print(
        f"| the queue to SQLite's own, ratio | {' | '.join(f'{each:.2f}' for each in ratios)} |"
    )


if __name__ == "__main__":
    main()
