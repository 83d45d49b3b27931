"""Which settings of gunicorn verify best, as ratios to the shipped ones; their memory.

    python -m bench.settings [--rounds 5]

MiB of master and workers when they have started, and after 2 s of load, with nothing
else served.
"""

import argparse
import contextlib
import random
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from bench import ROOT
from bench.setup import Server, fill
from bench.verify import Target, repeats

VARIANTS = {
    "as shipped: 2 workers of 4 threads": (),
    "1 thread": ("--threads", "1"),
    "2 threads": ("--threads", "2"),
    "8 threads": ("--threads", "8"),
    "sync workers": ("--worker-class", "sync", "--threads", "1"),
    "1 worker": ("--workers", "1"),
    "4 workers": ("--workers", "4"),
    "not preloaded": ("--config", "{home}/not_preloaded.conf.py"),
    "preloaded, not frozen": ("--config", "{home}/not_frozen.conf.py"),
}
MORE = {  # lines for gunicorn.conf.py
    "not_preloaded": "preload_app = False",
    # The collector marks what it looks at: in a worker, that copies what was shared.
    "not_frozen": "def when_ready(server):\n    pass",
}


def memory(server):
    """MiB of the master and its workers, what they share counted once."""
    master = psutil.Process(server.process.pid)
    return sum(p.memory_full_info().pss for p in (master, *master.children())) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="latchkey-bench-")
        home = stack.enter_context(made)
        shipped = (ROOT / "gunicorn.conf.py").read_text()
        for name, lines in MORE.items():
            Path(home, f"{name}.conf.py").write_text(f"{shipped}\n{lines}\n")
        url = f"sqlite:///{home}/latchkey.db"
        good, targets, used = fill(url, 100_000, 1000), [], {}

        def start(name):
            options = [option.format(home=home) for option in VARIANTS[name]]
            return Server("wsgi:app", Path(home, "log"), *options, DATABASE_URL=url)

        for name in VARIANTS:  # one at a time: what two servers share would count half
            server = start(name)
            time.sleep(3)
            used[name] = [memory(server)]
            Target(name, server, good, home).load(2, 32)  # every worker gets some
            used[name].append(memory(server))
            server.stop()
        for name in VARIANTS:
            server = start(name)
            stack.callback(server.stop)
            targets.append(Target(name, server, good, home))
        columns = "connections | CPU | requests/s | p50 | p99 | MiB idle, loaded"
        print(f"| gunicorn | {columns} |")
        print("|---" * 7 + "|")
        for connections in (4, 32):
            for target in targets:
                target.rounds.clear()
            for _ in range(rounds):
                for target in random.sample(targets, len(targets)):
                    target.measure(2, connections)
            for target in targets:
                pairs = list(zip(target.rounds, targets[0].rounds, strict=True))
                ratios = [
                    median(mine[i] / shipped[i] for mine, shipped in pairs)
                    for i in range(4)
                ]
                cells = [str(connections), *(f"{ratio:.2f}" for ratio in ratios)]
                cells.append(", ".join(f"{each:.0f}" for each in used[target.name]))
                print(f"| {target.name} | {' | '.join(cells)} |", flush=True)
            print(f"\n{repeats(targets)}\n")


if __name__ == "__main__":
    main()
