"""Which settings of gunicorn verify best: CPU time per request as a ratio to the shipped ones.

python -m bench.settings [--rounds 3]
"""

import argparse
import contextlib
import tempfile
from pathlib import Path
from statistics import median

import psutil

from bench.setup import Server, fill
from bench.verify import Target

VARIANTS = {
    "as shipped: 2 workers of 4 threads": (),
    "1 thread": ("--threads", "1"),
    "2 threads": ("--threads", "2"),
    "8 threads": ("--threads", "8"),
    "sync workers": ("--worker-class", "sync", "--threads", "1"),
    "1 worker": ("--workers", "1"),
    "4 workers": ("--workers", "4"),
}


def memory(server):
    """MiB of the master and its workers, what they share counted once."""
    master = psutil.Process(server.process.pid)
    return sum(p.memory_full_info().pss for p in (master, *master.children())) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print("| gunicorn | connections | CPU per request | requests/s | p50 | p99 | MiB |")
    print("|---" * 7 + "|")
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="latchkey-bench-"))
        url = f"sqlite:///{home}/latchkey.db"
        good, targets = fill(url, 100_000, 1000), []
        for name, options in VARIANTS.items():
            server = Server("wsgi:app", Path(home, "log"), *options, DATABASE_URL=url)
            stack.callback(server.stop)
            targets.append(Target(name, server, good, home))
        for connections in (4, 32):
            for target in targets:
                target.rounds.clear()
            for _ in range(rounds):
                for target in targets:
                    target.measure(2, connections)
            for target in targets:
                pairs = list(zip(target.rounds, targets[0].rounds, strict=True))
                ratios = [median(mine[i] / shipped[i] for mine, shipped in pairs) for i in range(4)]
                cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
                used = memory(target.server)
                print(f"| {target.name} | {connections} | {cells} | {used:.0f} |", flush=True)


if __name__ == "__main__":
    main()
