"""What the README says is so: its two commands and its walk are run, its tables are held.

``PYTHONPATH=. python tests/test_readme.py`` writes the present line counts into its table.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers import ROOT, free_port, program, wait_for
from test_size import SOURCES

import tokens

pytestmark = pytest.mark.live
README = ROOT / "README.md"
TEXT = README.read_text()
WALK = next(block for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) if "curl" in block)
CHANGING = (  # from one run to the next
    (r"\b(lks?)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b", r"\1_TOKEN"),
    (r'"key_public":"[0-9A-Za-z]{12}"', '"key_public":"PUBLIC"'),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
)


def normalised(text):
    for pattern, name in CHANGING:
        text = re.sub(pattern, name, text)
    return text


class DevSh:
    """``sh dev.sh run`` in a copy of what git has, with the packages of this environment."""

    def __init__(self, here, database_url):
        self.here, self.port, self.process = here, free_port(), None
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, here / name)
        (here / ".venv").mkdir()
        for part in Path(sys.prefix).iterdir():
            if not part.name.startswith("requirements"):
                (here / ".venv" / part.name).symlink_to(part)
        shutil.copy(ROOT / "requirements.txt", here / ".venv")  # dev.sh: it is installed
        self.environ = {n: v for n, v in os.environ.items() if "LATCHKEY" not in n and n != "PORT"}
        self.environ |= {"DATABASE_URL": database_url, "LATCHKEY_BCRYPT_ROUNDS": "4"}
        self.environ |= {"LATCHKEY_BIND": f"127.0.0.1:{self.port}", "WEB_CONCURRENCY": "1"}

    def run(self, **environ):
        """What it prints until it serves."""
        self.process = subprocess.Popen(
            ["sh", "dev.sh", "run"],
            cwd=self.here,
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told = []
        for line in self.process.stdout:
            told.append(line)
            if "Listening at" in line:
                wait_for(f"http://127.0.0.1:{self.port}/healthz")
                break
        return "".join(told)

    def stop(self):
        """The status that Ctrl-C ends it with."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)  # a worker that is starting may miss the signal
        return self.process.returncode


@pytest.fixture
def clone(tmp_path):
    started = []

    def make(database_url=""):
        started.append(DevSh(tmp_path / "a clone", database_url))
        return started[-1]

    yield make
    for each in started:
        if each.process and each.process.returncode is None:
            each.stop()


@pytest.fixture
def dev_sh(clone, new_database_url):
    return clone(new_database_url)


def test_the_walk_answers_what_the_readme_shows(dev_sh):
    program("curl", "curl")
    told = dev_sh.run()
    (password,) = re.findall(
        r"Sign in as  admin\n +Password    (\S+)   \(shown this once\)\n", told
    )
    walk = WALK
    for shown, real in (
        ("http://127.0.0.1:8000", f"http://127.0.0.1:{dev_sh.port}"),
        ("the printed one", password),
    ):
        assert walk.count(shown) == 1
        walk = walk.replace(shown, real)
    ran = subprocess.run(["bash", "-eu", "-c", walk], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = re.sub(r"\n#  ", "", WALK)  # an answer may go on in the next line
    expected = re.findall(r"^# (.*)$", shown, re.M)
    assert len(expected) == 5
    assert normalised(ran.stdout).splitlines() == [normalised(line) for line in expected]


def test_the_second_start_prints_no_password_and_ctrl_c_stops_it(dev_sh):
    assert "Password" in dev_sh.run()
    assert dev_sh.stop() == 0
    told = dev_sh.run()
    assert "Password" not in told and f"http://127.0.0.1:{dev_sh.port}" in told
    assert dev_sh.stop() == 0


def test_the_first_database_is_for_its_owner_only(clone):
    here = clone()
    assert "Listening" in here.run()
    assert (here.here / "instance/latchkey.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "LATCHKEY_BIND", "PORT"])
def test_a_bad_setting_is_one_line_and_nothing_else(clone, name):
    here = clone()
    assert re.fullmatch(f"latchkey: {name} must be .*\n", here.run(**{name: "no"}))
    assert here.stop() == 1


# --- tables -----------------------------------------------------------------------------------

COUNTS = {str(name): text.count("\n") for name, text in SOURCES.items()}


def recounted(text):
    """The README with the right number after each file's name."""
    for name, lines in COUNTS.items():
        text = re.sub(rf"`{re.escape(name)}` \d+", f"`{name}` {lines}", text)
    return re.sub(r"[\d,]+ lines in all", f"{sum(COUNTS.values()):,} lines in all", text)


def test_the_reading_order_has_every_file_and_its_lines():
    told = re.findall(r"`([a-z_./]+\.py)` \d+", TEXT)
    assert sorted(told) == sorted(COUNTS), "the table of the README has one entry for each file"
    rows = "\n".join(row for row in recounted(TEXT).splitlines() if re.match(r"\| `.*\.py` ", row))
    assert recounted(TEXT) == TEXT, (
        f"run PYTHONPATH=. python tests/test_readme.py; the right rows:\n{rows}"
    )


def test_every_chosen_dependency_has_its_reason():
    lines = (ROOT / "requirements.in").read_text().splitlines()
    chosen = [re.split(r"\[|==", line)[0] for line in lines if not line.startswith("#")]
    table = TEXT.split("| dependency |")[1]
    assert sorted(re.findall(r"^\| ([\w-]+) \| .{20,} \|$", table, re.M)) == sorted(chosen)


def test_what_is_installed_is_pinned_with_its_hashes():
    """pip then takes nothing else, not even the same version with other contents."""
    pinned = (ROOT / "requirements.txt").read_text().lower().replace("_", "-").split("\n")
    for line in (ROOT / "requirements.in").read_text().lower().splitlines()[1:]:
        assert f"{line.replace('[binary]', '')} \\" in pinned, line
    packages = [line for line in pinned if re.match("[a-z]", line)]
    followed = [pinned[pinned.index(line) + 1] for line in packages]
    assert len(packages) > 15 and all("--hash=sha256:" in line for line in followed)


def test_every_endpoint_is_named(app):
    table = TEXT.split("## Endpoints")[1].split("\n## ")[0]
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static":
            path = rule.rule.replace("<anything:id>", "{id}").replace(
                "<anything:path>", "<anything>"
            )
            methods = (rule.methods or {"any method"}) - {"HEAD", "OPTIONS"}
            for method in methods:
                named = re.search(rf"\| [^|]*{method} `?[^|]*{re.escape(path)}`", table)
                assert named, f"{method} {path}"


def test_a_token_matches_the_regular_expression_for_scanners():
    pattern, session = re.search(
        r"A token matches `(\S+)` \(a session's .* `(\w+)`\)", TEXT
    ).groups()
    assert re.fullmatch(pattern, tokens.mint("lk").text)
    assert re.fullmatch(pattern.replace("lk_", session), tokens.mint("lks").text)


if __name__ == "__main__":
    README.write_text(recounted(TEXT))
