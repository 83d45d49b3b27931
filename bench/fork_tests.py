"""Runs tests again and again, each time in a fork that has the libraries already.

It reads lines of JSON, ``[seconds, argument, …]``, and answers each with the first test
that failed, or with null. Nothing of the project is imported before the fork.
"""

import json
import os
import re
import signal
import sys
import time

import alembic.command  # noqa: F401
import bcrypt  # noqa: F401
import flask_migrate  # noqa: F401
import flask_sqlalchemy  # noqa: F401
import httpx  # noqa: F401
import marshmallow  # noqa: F401
import psutil  # noqa: F401
import psycopg  # noqa: F401
import pytest

ALWAYS = ["-x", "-m", "not live", "-p", "no:cacheprovider", "--tb=short", "-rfE"]
LOG = f"{os.getcwd()}.log"


def first_failure(seconds, arguments):
    """The name of the test, or what else went wrong; None if all passed."""
    child = os.fork()
    if child == 0:
        os.setsid()  # the programs that it starts are of its group
        with open(LOG, "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os._exit(pytest.main([*ALWAYS, *arguments]))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return named(status) if status else None
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def named(status):
    with open(LOG, errors="replace") as log:
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read(), re.M)
    return found[1] if found else f"status {status}"


for line in sys.stdin:
    seconds, *arguments = json.loads(line)
    print(json.dumps(first_failure(seconds, arguments)), flush=True)
