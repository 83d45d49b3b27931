"""The Dockerfile is built and run by buildah, on a bare Debian instead of its base."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from servers import ROOT, free_port, lacking, program, wait_for

from bench.bare_debian import CERTIFICATES, NETWORK, SOURCES, suite, write_apt_options
from tools import reading

# What python:3.13-slim has and Debian has not: `python`, and a pip that installs.
AS_PYTHON_SLIM = (
    "rm -f $1/usr/lib/python3*/EXTERNALLY-MANAGED; ln -s python3 $1/usr/bin/python"
)


def buildah(home, *words, **options):
    places = [f"--root={home}/storage", f"--runroot={home}/run"]
    command = ["buildah", *places, "--storage-driver=vfs", *words]
    options = {"check": True, "capture_output": True, "text": True, **options}
    return subprocess.run(command, **options).stdout.strip()


def make_base(home):
    """An image of Debian with pip, under the name ``base``."""
    sources = [source for source in SOURCES if os.path.exists(source)]
    command = ["mmdebstrap", "--quiet", "--variant=minbase"]
    command += ["--include=python3-pip,ca-certificates"]
    command += [f"--customize-hook={AS_PYTHON_SLIM}"]
    command += [f"--aptopt={write_apt_options(home)}", suite()]
    subprocess.run([*command, home / "base.tar", *sources[:1]], check=True)
    container = buildah(home, "from", "scratch")
    buildah(home, "add", container, home / "base.tar", "/")
    buildah(home, "commit", "--rm", container, "localhost/base")


@pytest.fixture(scope="module")
def image():
    """The home of the storage in which ``latchkey`` was built."""
    if os.getuid() != 0:
        lacking("buildah builds an image as root only, where there is no container")
    program("buildah", "buildah")
    program("mmdebstrap", "mmdebstrap")
    home = Path(tempfile.mkdtemp(prefix="latchkey-image-"))
    home.chmod(0o755)
    make_base(home)
    # What this machine needs to reach the package indexes.
    network = [name for name in os.environ if NETWORK.match(name)]
    options = [f"--env={name}={os.environ[name]}" for name in network]
    authorities = os.environ.get("SSL_CERT_FILE", CERTIFICATES)
    options += [f"--volume={authorities}:{CERTIFICATES}:ro"]
    options += [f"--env=PIP_CERT={CERTIFICATES}"]
    command = ["build", "--isolation=chroot", "--format=docker", *options]
    buildah(home, *command, "--from=localhost/base", "--tag=latchkey", ROOT)
    yield home
    shutil.rmtree(home)


class Container:
    """The image, started as its own Cmd says but for the port."""

    def __init__(self, home):
        self.home = home
        told = json.loads(buildah(home, "inspect", "--type=image", "latchkey"))
        self.config = told["Docker"]["config"]
        self.name = buildah(home, "from", "latchkey")
        self.files = Path(buildah(home, "mount", self.name))
        self.port = free_port()
        self.process = None

    def run(self, *words, **options):
        command = ["run", "--isolation=chroot", f"--env=PORT={self.port}"]
        return buildah(self.home, *command, self.name, "--", *words, **options)

    def start(self):
        places = [f"--root={self.home}/storage", f"--runroot={self.home}/run"]
        command = ["buildah", *places, "--storage-driver=vfs", "run"]
        command += ["--isolation=chroot", f"--env=PORT={self.port}", self.name, "--"]
        self.process = subprocess.Popen([*command, *self.config["Cmd"]])
        wait_for(f"http://127.0.0.1:{self.port}/healthz", 60)

    def gunicorns(self):
        inside = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in inside if p.name() == "gunicorn"]

    def stop(self):
        """Its status after SIGTERM to the process that would be the first."""
        self.gunicorns()[0].terminate()
        return self.process.wait(30)


@pytest.fixture
def container(image):
    container = Container(image)
    container.start()
    yield container
    if container.process.poll() is None:
        container.stop()
    buildah(image, "rm", container.name)


@pytest.mark.live
@pytest.mark.long
def test_the_image_serves_unprivileged_is_healthy_and_stops(container):
    answer = httpx.get(f"http://127.0.0.1:{container.port}/healthz")
    assert (answer.status_code, answer.json()["message"]) == (200, "ok")
    [uid] = {process.uids().real for process in container.gunicorns()}
    assert str(uid) == container.config["User"] != "0"
    added = container.run(
        "flask", "users", "add", "alice", "--password-stdin", input="correct horse\n"
    )
    assert added == "alice: user added"
    wanted = {"username": "alice", "password": "correct horse"}
    log_in = f"http://127.0.0.1:{container.port}/api/auth/login"
    assert httpx.post(log_in, json=wanted).status_code == 200
    database = "/var/lib/latchkey/latchkey.db"
    assert container.run("stat", "--format=%u %a", database) == f"{uid} 600"
    kind, *health = container.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    container.run(*health)
    assert container.stop() == 0
    with pytest.raises(subprocess.CalledProcessError):
        container.run(*health)


@pytest.mark.live
@pytest.mark.long
def test_the_image_has_what_runs_and_nothing_else(container):
    """Not the database of whoever built it, no tests, no compiler."""
    here = container.files / "opt/latchkey"
    top = {path.name for path in here.iterdir()} - {"__pycache__"}
    needed = {Path(name).parts[0] for part in reading.parts().values() for name in part}
    assert top == needed | {"migrations", "requirements.txt"}
    for name in ("gcc", "cc", "git", "curl"):
        assert not (container.files / "usr/bin" / name).exists()
    owners = {path.stat().st_uid for path in here.rglob("*")}
    assert owners == {0}


# --- compose.yaml ---------------------------------------------------------------------


def test_compose_has_no_secret_of_its_own_and_waits_for_postgresql():
    text = (ROOT / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    latchkey, postgres = services["latchkey"], services["postgres"]
    passwords = [
        latchkey["environment"]["PGPASSWORD"],
        postgres["environment"]["POSTGRES_PASSWORD"],
    ]
    for password in passwords:  # compose stops with these words if it is not set
        assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", password)
    assert latchkey["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "pg_isready" in postgres["healthcheck"]["test"]
    assert latchkey["ports"] == ["127.0.0.1:8000:8000"]
    assert "@postgres/" in latchkey["environment"]["DATABASE_URL"]
