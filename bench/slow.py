"""Do clients that send a byte a second hold verification up, with nginx and without?

python -m bench.slow [--clients 500] [--seconds 20]
"""

import argparse
import contextlib
import http.client
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles

from servers import behind_nginx, slow_clients

from bench.setup import Server, fill


def verify(url, token, until):
    """One client, ten times a second: ms of each answer, None where none came."""
    found = []
    while time.monotonic() < until:
        link = http.client.HTTPConnection(url[7:], timeout=2)
        with contextlib.closing(link):
            began, answer = time.monotonic(), None
            with contextlib.suppress(OSError):
                head = {"Authorization": f"Bearer {token}"}
                link.request("GET", "/verify", headers=head)
                answer = link.getresponse().status
            assert answer in (200, None), answer
            found.append((time.monotonic() - began) * 1000 if answer else None)
        time.sleep(0.1)
    return found


def line(name, url, tokens, seconds):
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(len(tokens)) as pool:
        found = sum(pool.map(lambda token: verify(url, token, until), tokens), [])
    took = [each for each in found if each]
    cuts = quantiles(took, n=100) if len(took) > 1 else None
    cells = f"{cuts[49]:.1f} | {cuts[98]:.1f}" if cuts else "| "
    print(f"| {name} | {len(took)} | {len(found) - len(took)} | {cells} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    print("| | answered | no answer in 2 s | p50 ms | p99 ms |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as home:
        database = f"sqlite:///{home}/latchkey.db"
        tokens = fill(database, 1000, 4)
        server = Server("wsgi:app", Path(home, "log"), DATABASE_URL=database)
        with behind_nginx(server.url, home) as nginx:
            for name, url in (("behind nginx", nginx), ("gunicorn alone", server.url)):
                line(f"{name}, quiet", url, tokens, options.seconds)
                with slow_clients(url, options.clients):
                    title = f"{name}, {options.clients} slow clients"
                    line(title, url, tokens, options.seconds)
        server.stop()


if __name__ == "__main__":
    main()
