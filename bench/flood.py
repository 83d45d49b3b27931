"""Does a flood of wrong log-ins starve verification? Its latency, quiet and flooded, in turn.

    python -m bench.flood [--rounds 5] [--clients 16]

Each attempt has a name and, through one trusted proxy, an address of its own: no throttle helps.
"""

import argparse
import http.client
import itertools
import json
import multiprocessing
import random
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from bench.setup import Server, fill


def flood(port, number, over):
    """Ten wrong log-ins a second, or as many as are answered."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for n in itertools.count():
        if over.is_set():
            return
        body = json.dumps({"username": f"nobody{number}.{n}", "password": "wrong"})
        address = f"10.{number}.{n // 250 % 250}.{n % 250}"
        head = {"Content-Type": "application/json", "X-Forwarded-For": address}
        link.request("POST", "/api/auth/login", body, head)
        link.getresponse().read()
        time.sleep(0.1)


def latencies(port, tokens, seconds, clients=4):
    """Of what so many clients ask in that time, in ms."""
    with multiprocessing.Pool(clients) as pool:
        asked = [(port, tokens, seconds)] * clients
        return [each for found in pool.starmap(verify, asked) for each in found]


def verify(port, tokens, seconds):
    link, found = http.client.HTTPConnection("127.0.0.1", port), []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        head = {"Authorization": f"Bearer {random.choice(tokens)}"}
        link.request("GET", "/verify", headers=head)
        answer = link.getresponse()
        answer.read()
        found.append((time.monotonic() - began) * 1000)
        assert answer.status == 200
        time.sleep(0.002)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    told = parser.parse_args()
    print("| round | quiet p50 / p99 ms | flooded p50 / p99 ms | p99, ratio |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as home:
        url, ratios = f"sqlite:///{home}/latchkey.db", []
        tokens = fill(url, 1000, 100)
        environ = {"DATABASE_URL": url, "LATCHKEY_TRUSTED_PROXIES": "1"}
        server = Server("wsgi:app", Path(home, "log"), **environ)
        latencies(server.port, tokens, 1)
        for number in range(told.rounds):
            quiet = quantiles(latencies(server.port, tokens, 4), n=100)
            over = multiprocessing.Event()
            arguments = [
                (server.port, number * told.clients + n, over) for n in range(told.clients)
            ]
            processes = [multiprocessing.Process(target=flood, args=each) for each in arguments]
            for each in processes:
                each.start()
            time.sleep(1)
            flooded = quantiles(latencies(server.port, tokens, 4), n=100)
            over.set()
            for each in processes:
                each.join()
            ratios.append(flooded[98] / quiet[98])
            shown = [f"{each[49]:.1f} / {each[98]:.1f}" for each in (quiet, flooded)]
            print(f"| {number + 1} | {shown[0]} | {shown[1]} | {ratios[-1]:.1f} |", flush=True)
        print(f"| median | | | {median(ratios):.1f} |")
        server.stop()


if __name__ == "__main__":
    main()
