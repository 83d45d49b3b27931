"""The README's two commands and its walk are run; test_docs.py holds the rest of it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers import ROOT, free_port, program, wait_for

pytestmark = pytest.mark.live
README = ROOT / "README.md"
TEXT = README.read_text()
WALK = next(
    block for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) if "curl" in block
)
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


NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "instance", "node_modules")


class DevSh:
    """``sh dev.sh run`` in a copy of the tree, with this environment's packages."""

    def __init__(self, here, database_url):
        self.here = here
        self.port = free_port()
        self.process = None
        shutil.copytree(ROOT, here, ignore=NOT_COPIED)
        (here / ".venv").mkdir()
        for part in Path(sys.prefix).iterdir():
            if not part.name.startswith("requirements"):
                (here / ".venv" / part.name).symlink_to(part)
        # So dev.sh finds that it is installed.
        shutil.copy(ROOT / "requirements.txt", here / ".venv")
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if "LATCHKEY" not in name and name != "PORT"
        }
        self.environ["DATABASE_URL"] = database_url
        self.environ["LATCHKEY_BCRYPT_ROUNDS"] = "4"
        self.environ["LATCHKEY_BIND"] = f"127.0.0.1:{self.port}"
        self.environ["WEB_CONCURRENCY"] = "1"

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
        # A worker that is starting may miss the signal.
        self.process.communicate(timeout=60)
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
    ran = subprocess.run(
        ["bash", "-eu", "-c", walk], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = re.sub(r"\n#>  ", "", WALK)  # an answer may go on in the next line
    expected = re.findall(r"^#> (.*)$", shown, re.M)
    assert len(expected) == 5
    assert normalised(ran.stdout).splitlines() == [
        normalised(line) for line in expected
    ]


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


def test_what_is_installed_is_pinned_with_its_hashes():
    """pip then takes nothing else, not even the same version with other contents."""
    pinned = (
        (ROOT / "requirements.txt").read_text().lower().replace("_", "-").split("\n")
    )
    for line in (ROOT / "requirements.in").read_text().lower().splitlines()[1:]:
        assert f"{line.replace('[binary]', '')} \\" in pinned, line
    packages = [line for line in pinned if re.match("[a-z]", line)]
    followed = [pinned[pinned.index(line) + 1] for line in packages]
    assert len(packages) > 15 and all("--hash=sha256:" in line for line in followed)
