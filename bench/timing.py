"""Does the time of a refusal tell what is known? Two kinds of wrong request, in turn.

python -m bench.timing [--log-ins 80] [--keys 6000]
"""

import argparse
import functools
import http.client
import itertools
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from servers import Postgres, prepared

from bench.setup import Server, fill
from tokens import checksum, new_token

numbers = itertools.count()


def asked(link, method, path, head, body=None):
    """Milliseconds until the answer, which has to be 401."""
    began = time.perf_counter()
    link.request(method, path, body, head)
    answer = link.getresponse()
    answer.read()
    assert answer.status == 401
    return (time.perf_counter() - began) * 1000


def log_in(link, name):
    address = {"X-Forwarded-For": f"10.0.{next(numbers) // 250}.{next(numbers) % 250}"}
    body = json.dumps({"username": name, "password": "wrong"})
    head = {"Content-Type": "application/json", **address}
    return asked(link, "POST", "/api/auth/login", head, body)


def verify(link, public):
    body = f"lk_{public}_{new_token('lk').text[16:-6]}"
    wrong = body + checksum(body)
    return asked(link, "GET", "/verify", {"Authorization": f"Bearer {wrong}"})


def verify_unknown(link):
    return verify(link, new_token("lk").public)


def compare(what, one, other, count):
    """Both in random order; the medians' difference, and the 95 % interval of it."""
    found = ([], [])
    for _ in range(count):
        for side in random.sample((0, 1), 2):
            found[side].append((one, other)[side]())
    spread = sorted(
        median(random.choices(found[0], k=count))
        - median(random.choices(found[1], k=count))
        for _ in range(500)
    )
    cells = []
    for times in found:
        cuts = quantiles(times, n=20)
        cells.append(f"{cuts[0]:.2f} / {cuts[9]:.2f} / {cuts[18]:.2f}")
    cells.append(f"{median(found[0]) - median(found[1]):+.3f}")
    interval = f"({spread[12]:+.3f} … {spread[487]:+.3f})"
    print(f"| {what} | {' | '.join(cells)} {interval} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log-ins", type=int, default=80)
    parser.add_argument("--keys", type=int, default=6000)
    options = parser.parse_args()
    columns = [f"{kind} p5 / p50 / p95 ms" for kind in ("known", "unknown")]
    print(f"| what | {' | '.join(columns)} | median's difference |")
    print("|---" * 4 + "|")
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as home:
        postgres = Postgres()
        sqlite = f"sqlite:///{home}/latchkey.db"
        for name, url in (("SQLite", sqlite), ("PostgreSQL", postgres.url)):
            with prepared(url, rounds=12):
                public = fill(url, 1000, 1)[0].split("_")[1]
                environ = {"DATABASE_URL": url, "LATCHKEY_TRUSTED_PROXIES": "1"}
                environ["LATCHKEY_LOGIN_FAILURES"] = "1000"
                server = Server("wsgi:app", Path(home, "log"), **environ)
                link = http.client.HTTPConnection("127.0.0.1", server.port)
                measure(name, link, public, options)
                server.stop()
        postgres.remove()


def measure(name, link, public, options):
    verify(link, public)  # the first of a minute is written down
    log_in(link, "alice")
    known, unknown = (functools.partial(log_in, link, who) for who in ("alice", "zoe"))
    compare(f"{name}: name of a log-in", known, unknown, options.log_ins)
    known = functools.partial(verify, link, public)
    unknown = functools.partial(verify_unknown, link)
    compare(f"{name}: public part", known, unknown, options.keys)


if __name__ == "__main__":
    main()
