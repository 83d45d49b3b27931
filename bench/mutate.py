"""Do the tests see it when the core is changed? Mutation testing with Cosmic Ray.

    python -m bench.mutate [--again] [FILE ...]

Each mutant is one change of one file of the core, in a copy of the project. It is
killed if a test that needs no live program fails, or does not end in time. First run
the tests of FIRST on SQLite; what survives them meets all the tests, on both databases.
The exit is 1 if a mutant survives that bench/mutants.md does not list as equivalent.

Results are kept in .mutants.jsonl, by the content of the changed file: a run that was
stopped goes on, and only what changed since is tried again. ``--again`` tries survivors
again, after new tests.
"""

import argparse
import ast
import difflib
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from servers import Postgres

from bench import ROOT

KEPT = ROOT / ".mutants.jsonl"
EQUIVALENT = ROOT / "bench/mutants.md"
COPIES = 2  # as many mutants are tried at a time
# Of Cosmic Ray's operators: NoOp changes nothing, and BitOr would change only types
# (``str | None``), which Python then refuses to import.
LEFT_OUT = re.compile("NoOp|BinaryOperator_BitOr")
# Changes of SQL, which Cosmic Ray does not know.
SQL = [
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bNOT BETWEEN\b", "BETWEEN"),
    (r"(?<!NOT )\bBETWEEN\b", "NOT BETWEEN"),
    (r"<= (?=%)", "< "),
    (r"<= (?=%)", ">= "),
    (r"\bAND (?=\()", "OR "),
    (r"%\(minute_ago\)s", "%(now)s"),
    (r"%\(in_a_minute\)s", "%(now)s"),
    (r"(?<=AND )%\(now\)s", "%(minute_ago)s"),
    (r"(?<== )%\((now|ip|id|public)\)s", "NULL"),
]
STRICT = [
    "auth.py",
    "tokens.py",
    "verify.py",
    "models/verification.py",
    "models/key_row.py",
    "models/api_key.py",
]
OTHERS = [
    "errors.py",
    "json_api.py",
    "origin.py",
    "models/audit_event.py",
    "models/connections.py",
    "models/database.py",
    "models/session.py",
    "models/user.py",
    "routes/api_keys.py",
    "routes/sessions.py",
    "schemas/described.py",
    "schemas/error.py",
    "schemas/requests.py",
    "schemas/resources.py",
]
FIRST = {  # the tests that know a file best
    "auth.py": ["sessions.py", "cookie.py", "api_keys.py"],
    "tokens.py": ["tokens.py", "verify.py", "log.py"],
    "verify.py": ["verify.py"],
    "models/verification.py": ["verify.py"],
    "models/key_row.py": ["verify.py"],
    "models/api_key.py": ["revoke_key.py", "api_keys.py"],
    "models/session.py": ["sessions.py", "password.py"],
    "models/user.py": ["sessions.py", "password.py"],
    "models/audit_event.py": ["sessions.py"],
}
ALL = [
    "verify.py",
    "revoke_key.py",
    "api_keys.py",
    "sessions.py",
    "tokens.py",
    "migrations.py::test_flask_db_check_finds_nothing",
    "password.py",
    "log.py",
    "not_found.py",
    "cookie.py",
    "key_names.py",
    "oauth.py",
    "attacks.py",
    "http_edges.py",
]
SECONDS = 1800  # then a test hangs; generous, since the machine may be busy


class Mutant(NamedTuple):
    file: str
    source: str  # the whole file, with one change
    change: str  # the lines that differ: old → new

    @property
    def key(self):
        return hashlib.sha256(f"{self.file}\n{self.source}".encode()).hexdigest()


def mutants_of(file):
    """Every mutant of a file, each once."""
    source = (ROOT / file).read_text()
    changed = [*by_cosmic_ray(source), *without_calls(source), *by_sql(source)]
    return [
        Mutant(file, mutant, difference(source, mutant))
        for mutant in dict.fromkeys(changed)
        if compiles(mutant)
    ]


def by_cosmic_ray(source):
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        if LEFT_OUT.search(name) or get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        positions = [at for node in nodes for at in operator.mutation_positions(node)]
        for occurrence in range(len(positions)):
            # It cannot replace an exception with a dot in its name.
            with suppress(AttributeError):
                yield mutate_code(source, operator, occurrence)


def without_calls(source):
    """Each statement that is only a call is left out: ``commit()``, ``close()``."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            before, after = lines[: node.lineno - 1], lines[node.end_lineno :]
            yield "".join([*before, " " * node.col_offset + "pass\n", *after])


def by_sql(source):
    for pattern, new in SQL:
        for found in re.finditer(pattern, source):
            yield source[: found.start()] + new + source[found.end() :]


def compiles(source):
    """Cosmic Ray also takes ``*`` in ``f(*arguments)`` for an operator."""
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def difference(old, new):
    """Unchanged lines are left out: ``if a > b: → if a < b:``."""
    lines = difflib.ndiff(old.splitlines(), new.splitlines())
    sides = {"- ": [], "+ ": []}
    for line in lines:
        if line[:2] in sides:
            sides[line[:2]].append(line[2:].strip())
    return " → ".join(" ".join(side).strip() or "nothing" for side in sides.values())


class Copy:
    """A copy of the project, and a process that runs tests in it."""

    def __init__(self, root, postgresql_url):
        self.root = root
        self.time = 0
        ignored = shutil.ignore_patterns(".git", ".venv", "instance", ".*_cache")
        shutil.copytree(ROOT, root, ignore=ignored)
        self.runner = subprocess.Popen(
            [sys.executable, root / "bench/fork_tests.py"],
            cwd=root,
            env={
                **os.environ,
                "TEST_DATABASE_URL": postgresql_url,
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PYTHONDONTWRITEBYTECODE": "",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def failure(self, mutant):
        """Which test fails with this mutant in the place of its file; None if none."""
        path = self.root / mutant.file
        original = path.read_text()
        self.write(path, mutant.source)
        first = FIRST.get(mutant.file, ALL)
        try:
            return self.test(first, "-k", "not postgresql") or self.test(ALL)
        finally:
            self.write(path, original)

    def test(self, names, *options):
        """Run tests until one fails; returns its name."""
        files = [f"tests/test_{name}" for name in names]
        order = json.dumps([SECONDS, *options, *files])
        print(order, file=self.runner.stdin, flush=True)
        return json.loads(self.runner.stdout.readline())

    def end(self):
        self.runner.stdin.close()
        self.runner.wait()

    def write(self, path, text):
        """With a time of its own: Python compiles again what has another time."""
        path.write_text(text)
        self.time += 1
        os.utime(path, (self.time, self.time))


def recorded():
    """What is known: the test that killed a mutant, or None, by the mutant's key."""
    if not KEPT.exists():
        return {}
    lines = map(json.loads, KEPT.read_text().splitlines())
    return {line["key"]: line["killed_by"] for line in lines}


def try_all(mutants):
    """Try these mutants, as many at a time as there are copies; keep each result."""
    free = SimpleQueue()  # copies

    def try_one(mutant):
        copy = free.get()
        keep(mutant, copy.failure(mutant))
        free.put(copy)

    with ExitStack() as stack, ThreadPoolExecutor(COPIES) as pool:
        home = stack.enter_context(TemporaryDirectory(prefix="latchkey-mutants-"))
        for number in range(COPIES):
            postgresql = Postgres()
            stack.callback(postgresql.remove)
            copy = Copy(Path(home, str(number)), postgresql.url)
            stack.callback(copy.end)
            free.put(copy)
        if failed := copy.test(ALL):
            sys.exit(f"without any mutant this fails: {failed}")
        list(pool.map(try_one, mutants))


def keep(mutant, killed_by):
    name = f"{mutant.file}: {mutant.change}"
    line = {"key": mutant.key, "mutant": name, "killed_by": killed_by}
    with KEPT.open("a") as kept:
        print(json.dumps(line, ensure_ascii=False), file=kept)
    print(f"{name} | {killed_by or 'SURVIVED'}", flush=True)


def report(mutants, known):
    """Print the figures of each file, and what survives; returns how many do."""
    listed = EQUIVALENT.read_text()
    total = Counter()
    for file, group in itertools.groupby(mutants, key=lambda mutant: mutant.file):
        counts = Counter(mutants=0, killed=0, equivalent=0, surviving=0)
        for mutant in group:
            counts["mutants"] += 1
            counts[verdict(mutant, known, listed)] += 1
        print(f"{file}: {figures(counts)}")
        total += counts
    print(f"all: {figures(total)}")
    return total["surviving"]


def verdict(mutant, known, listed):
    if known[mutant.key]:
        return "killed"
    if f"`{mutant.file}: {mutant.change}`" in listed:
        return "equivalent"
    print(f"SURVIVED {mutant.file}: {mutant.change}")
    return "surviving"


def figures(counts):
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", default=STRICT + OTHERS, metavar="FILE")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    options = parser.parse_args()
    mutants = [mutant for file in options.files for mutant in mutants_of(file)]
    known, listed = recorded(), EQUIVALENT.read_text()
    wanted = [
        mutant
        for mutant in mutants
        if mutant.key not in known
        or (options.again and verdict(mutant, known, listed) == "surviving")
    ]
    if wanted:
        try_all(wanted)
    sys.exit(1 if report(mutants, recorded()) else 0)


if __name__ == "__main__":
    main()
