"""How long a revocation takes on SQLite, with 8 clients at once.

python -m bench.revoke [--rounds 7] [--each 200]
"""

import argparse
import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from servers import prepared

from bench.revocation import call, people
from bench.setup import Server

CLIENTS = 8


def revoke(port, persons):
    """One client: milliseconds of each revocation."""
    link, took = http.client.HTTPConnection("127.0.0.1", port), []
    for person in persons:
        path = f"/api/me/api-keys/{person.key_id}"
        began = time.monotonic()
        status = call(link, "DELETE", path, person.session)
        assert status == 200, status
        took.append((time.monotonic() - began) * 1000)
    link.close()
    return took


def measure(port, persons):
    """p50, p99 and the longest in ms, and revocations a second."""
    began = time.monotonic()
    parts = [persons[n::CLIENTS] for n in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = sum(pool.map(revoke, [port] * CLIENTS, parts), [])
    rate = len(took) / (time.monotonic() - began)
    cuts = quantiles(took, n=100)
    return cuts[49], cuts[98], max(took), rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--each", type=int, default=200, help="of a client, each round")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="latchkey-bench-") as home:
        url = f"sqlite:///{home}/latchkey.db"
        with prepared(url) as app:
            server = Server("wsgi:app", Path(home, "log"), DATABASE_URL=url)
            measure(server.port, people(app, CLIENTS))
            rounds = [
                measure(server.port, people(app, CLIENTS * options.each))
                for _ in range(options.rounds)
            ]
            server.stop()
    print("| | p50 ms | p99 ms | longest ms | revocations/s |\n|---|---|---|---|---|")
    for title, pick in (("median round", median), ("highest", max)):
        p50, p99, longest, rate = map(pick, zip(*rounds, strict=True))
        print(f"| {title} | {p50:.1f} | {p99:.1f} | {longest:.1f} | {rate:,.0f} |")


if __name__ == "__main__":
    main()
