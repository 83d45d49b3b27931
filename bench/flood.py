"""Do password checks starve verification? Its latency, quiet and under three floods.

    python -m bench.flood [--rounds 5] [--seconds 4] [APPLICATION]

Sixteen clients try wrong passwords, ten times a second each, with ever new names and,
through one trusted proxy, ever new addresses: no throttle helps. Eight clients log in
with the right password, or create keys with it, again as soon as they are answered.
Four clients verify keys meanwhile; their latency is what counts.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median, quantiles

import bcrypt
from servers import PASSWORD

from app import create_app
from bench.setup import Server, fill
from models.database import db, new_id
from models.session import Session
from models.user import User


def wrong_log_ins(number, session):
    for n in itertools.count():
        body = {"username": f"nobody{number}.{n}", "password": "wrong"}
        address = f"10.{number}.{n // 250 % 250}.{n % 250}"
        yield "/api/auth/login", body, {"X-Forwarded-For": address}
        time.sleep(0.1)


def right_log_ins(number, session):
    while True:
        yield "/api/auth/login", {"username": name(number), "password": PASSWORD}, {}


def new_keys(number, session):
    body = {"name": "flood", "mode": "read", "password": PASSWORD}
    while True:
        yield "/api/me/api-keys", body, {"Authorization": f"Bearer {session}"}


FLOODS = {  # clients, what each sends, the status of a password that was checked
    "quiet": (0, None, None),
    "wrong log-ins": (16, wrong_log_ins, 401),
    "right log-ins": (8, right_log_ins, 200),
    "new keys": (8, new_keys, 201),
}


def name(number):
    return f"person{number}"


def add_people(url, count):
    """The sessions of so many users, whose password costs what it does by default."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12)).decode()
    with create_app({"DATABASE_URL": url}).app_context():
        sessions = []
        for number in range(count):
            user = User(id=new_id(), username=name(number), password_hash=hashed)
            db.session.add(user)
            sessions.append(Session.start(user))
        db.session.commit()
        db.engine.dispose()
    return [session.token for session in sessions]


def flood(port, requests, over, answered):
    """One client: sends its requests until it is over; counts the answers by status."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    counts = Counter()
    for path, body, headers in requests:
        if over.is_set():
            break
        headers["Content-Type"] = "application/json"
        link.request("POST", path, json.dumps(body), headers)
        answer = link.getresponse()
        answer.read()
        counts[answer.status] += 1
    answered.put(counts)


@contextlib.contextmanager
def flooded(port, what, sessions):
    """The clients flood meanwhile. Yields the answers by status, which come later."""
    clients, requests, _ = FLOODS[what]
    over, answered, counts = multiprocessing.Event(), multiprocessing.Queue(), Counter()
    numbers = random.sample(range(250), clients) if clients > len(sessions) else None
    processes = []
    for n in range(clients):
        sent = requests(numbers[n] if numbers else n, sessions[n % len(sessions)])
        arguments = (port, sent, over, answered)
        processes.append(multiprocessing.Process(target=flood, args=arguments))
        processes[-1].start()
    time.sleep(1)
    yield counts
    over.set()
    for _ in processes:
        counts.update(answered.get(timeout=60))
    for process in processes:
        process.join()


def latencies(port, tokens, seconds, clients=4):
    """Of what so many clients ask in that time, in ms."""
    with multiprocessing.Pool(clients) as pool:
        arguments = [(port, tokens, seconds)] * clients
        return sum(pool.starmap(verify, arguments), [])


def verify(port, tokens, seconds):
    link = http.client.HTTPConnection("127.0.0.1", port)
    took = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        head = {"Authorization": f"Bearer {random.choice(tokens)}"}
        link.request("GET", "/verify", headers=head)
        answer = link.getresponse()
        answer.read()
        took.append((time.monotonic() - began) * 1000)
        assert answer.status == 200, answer.status
        time.sleep(0.002)
    return took


def measure(port, tokens, sessions, seconds):
    """For each flood p50 and p99 in ms, and passwords checked and refused a second."""
    figures = {}
    for what, (*_, checked) in FLOODS.items():
        began = time.monotonic()
        with flooded(port, what, sessions) as counts:
            cuts = quantiles(latencies(port, tokens, seconds), n=100)
        lasted = time.monotonic() - began
        assert set(counts) <= {checked, 503, 409}, counts
        rates = [(counts[checked] + counts[409]) / lasted, counts[503] / lasted]
        figures[what] = [cuts[49], cuts[98], *rates]
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("application", nargs="?", default="wsgi:app")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as home:
        url = f"sqlite:///{home}/latchkey.db"
        tokens = fill(url, 1000, 100)
        sessions = add_people(url, 8)
        environ = {
            "DATABASE_URL": url,
            "LATCHKEY_TRUSTED_PROXIES": "1",
            "LATCHKEY_LOGIN_FAILURES": "1000",
            "LATCHKEY_MAX_ACTIVE_KEYS": "1000",
        }
        server = Server(options.application, Path(home, "log"), **environ)
        try:
            latencies(server.port, tokens, 1)
            rounds = [
                measure(server.port, tokens, sessions, options.seconds)
                for _ in range(options.rounds)
            ]
        finally:
            server.stop()
    print("| | p50 ms | p99 ms | p99 to quiet | passwords checked/s | refused/s |")
    print("|---" * 6 + "|")
    for what in FLOODS:
        columns = zip(*(figures[what] for figures in rounds), strict=True)
        p50, p99, checked, refused = map(median, columns)
        ratio = median(figures[what][1] / figures["quiet"][1] for figures in rounds)
        rates = f"{checked:.1f} | {refused:.1f}"
        print(f"| {what} | {p50:.1f} | {p99:.1f} | {ratio:.1f} | {rates} |")


if __name__ == "__main__":
    main()
