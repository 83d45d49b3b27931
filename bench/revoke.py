"""How long a revocation takes with 8 clients at once on SQLite: python -m bench.revoke"""

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles
from tempfile import TemporaryDirectory

from bench.revocation import Server, call, log, people, prepared

CLIENTS, EACH = 8, 200


def revoke(port, persons):
    """One client: milliseconds of each revocation."""
    link, took = http.client.HTTPConnection("127.0.0.1", port), []
    for person in persons:
        began = time.monotonic()
        status = call(link, "DELETE", f"/api/me/api-keys/{person.key_id}", person.session)
        assert status == 200, status
        took.append((time.monotonic() - began) * 1000)
    link.close()
    return took


def main():
    with TemporaryDirectory() as home:
        url = f"sqlite:///{home}/latchkey.db"
        with prepared(url) as app, ThreadPoolExecutor(CLIENTS) as pool:
            server, persons = Server(url, log(home)), people(app, CLIENTS * EACH)
            began = time.monotonic()
            parts = [persons[n::CLIENTS] for n in range(CLIENTS)]
            took = sum(pool.map(revoke, [server.port] * CLIENTS, parts), [])
            rate, cuts = len(took) / (time.monotonic() - began), quantiles(took, n=100)
            server.stop()
    print(f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, {rate:,.0f} revocations/s")


if __name__ == "__main__":
    main()
