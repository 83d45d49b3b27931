"""What LATCHKEY_FAILOVER costs a verification, with a synchronous standby on loopback.

python -m bench.failover_cost [--rounds 9] [--seconds 1] [--connections 4]
"""

import argparse
import contextlib
import random
import tempfile
from pathlib import Path
from statistics import median

from servers import Postgres

from bench.setup import Server, fill
from bench.verify import ALONE, UNDER_LOAD, Target, repeats, table

KEYS = 100_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="latchkey-bench-")
        home = stack.enter_context(made)
        found = targets(stack, home)
        for _ in range(options.rounds):
            for target in random.sample(found, len(found)):
                target.measure(options.seconds, options.connections)
        print(table(found, UNDER_LOAD), table(found, ALONE), sep="\n\n", end="\n\n")
        off, on = (target.rounds for target in found[1:])
        pairs = list(zip(off, on, strict=True))
        share = median(with_[1] / without[1] for without, with_ in pairs)
        more = median(with_[7] - without[7] for without, with_ in pairs)
        print(f"On to off, in the same round: {share:.0%} of the requests/s;", end=" ")
        print(f"{more:.2f} ms more for one request at a time.", repeats(found))


def targets(stack, home):
    """The floor, and Latchkey on the same primary without and with the setting."""
    primary = Postgres()
    stack.callback(primary.remove)
    standby = Postgres(primary)
    stack.callback(standby.remove)
    asked = fill(primary.url, KEYS, 1000)
    primary.set("synchronous_standby_names", "*")

    def target(name, application, database=None, **environ):
        server = Server(application, Path(home, "gunicorn.log"), **environ)
        stack.callback(server.stop)
        return Target(name, server, asked, home, database)

    url = primary.url
    on = {"DATABASE_URL": url, "LATCHKEY_FAILOVER": "1"}
    return [
        target("floor: an empty Flask view", "bench.floor:app"),
        target("PostgreSQL, LATCHKEY_FAILOVER off", "wsgi:app", url, DATABASE_URL=url),
        target("PostgreSQL, LATCHKEY_FAILOVER on", "wsgi:app", url, **on),
    ]


if __name__ == "__main__":
    main()
