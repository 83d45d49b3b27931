"""Does Latchkey serve on a bare Debian after the commands of docs/deploy.md?

    python -m bench.debian_vm [--keep]

Makes a Debian root with mmdebstrap, boots its systemd in a container of systemd-nspawn,
runs the commands of "On a VM" and "nginx and TLS" as they stand in the page, and looks
at the service, the wrapper, the timers and nginx. It needs root.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import psutil

from bench import ROOT
from bench.bare_debian import (
    CERTIFICATES,
    NETWORK,
    NOT_COPIED,
    SOURCES,
    say,
    suite,
    write_apt_options,
)

PACKAGES = "python3-venv,nginx,ssl-cert,ca-certificates,systemd-sysv,curl"
PROGRAMS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container"}
BACKUPS = "/var/backups/latchkey"
SITE = "keys.test"
CURL = f"curl --silent --insecure --resolve {SITE}:443:127.0.0.1 https://{SITE}"
# A value that a shell would not read as systemd does.
SETTINGS = "DATABASE_URL=sqlite:////var/lib/latchkey/it's $HOME.db\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the root there")
    arguments = parser.parse_args()
    for name, package in PROGRAMS.items():
        if not shutil.which(name):
            sys.exit(f"{name} is not installed: apt-get install {package}")
    if os.getuid() != 0:
        sys.exit("bench.debian_vm needs root, for its container")
    home = Path(mkdtemp(prefix="latchkey-vm-"))
    try:
        with booted(make_root(home)) as vm:
            set_up(vm)
            check_service(vm)
            check_settings(vm)
            check_timers(vm)
    finally:
        if not arguments.keep:
            shutil.rmtree(home)


def make_root(home: Path) -> Path:
    """The path of a bare Debian root with systemd, and the tree in /opt/latchkey."""
    root = home / "root"
    home.chmod(0o755)
    sources = [source for source in SOURCES if os.path.exists(source)]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
    command += [f"--aptopt={write_apt_options(home)}", suite(), root, *sources[:1]]
    subprocess.run(command, check=True)
    shutil.copytree(
        ROOT, root / "opt/latchkey", ignore=shutil.ignore_patterns(*NOT_COPIED)
    )
    subprocess.run(["chown", "-R", "root:", root / "opt/latchkey"], check=True)
    authorities = os.environ.get("SSL_CERT_FILE", CERTIFICATES)
    shutil.copy(authorities, f"{root}{CERTIFICATES}")
    shutil.copy("/etc/resolv.conf", root / "etc")
    say(f"made a Debian {suite()} with {PACKAGES} in {root}")
    return root


class Machine:
    """A container whose systemd is running."""

    def __init__(self, root: Path, pid: int) -> None:
        self.root = root
        self.pid = pid

    def run(self, command: str, network: bool = False) -> str:
        """The output of a command of the shell, with this machine's network or none."""
        outside = {n: text for n, text in os.environ.items() if NETWORK.match(n)}
        inside = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "PIP_CERT": CERTIFICATES,
        }
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--ipc"]
        enter += ["--uts", "--root", "--wd"]
        if not network:
            enter += ["--net"]
        ran = subprocess.run(
            [*enter, "/bin/sh", "-ec", command],
            env=inside | (outside if network else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        say(f"# {command}\n    " + "\n    ".join(ran.stdout.splitlines()))
        if ran.returncode != 0:
            sys.exit(f"that ended with status {ran.returncode}")
        return ran.stdout

    def expect(self, pattern: str, command: str) -> None:
        """Exit unless the pattern is in the command's output."""
        if not re.search(pattern, self.run(command), re.DOTALL):
            sys.exit(f"that does not say {pattern}")


def wait_for_systemd(process: subprocess.Popen[bytes], deadline: float) -> int:
    """The id of the container's first process, when it takes commands."""
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children():
            if Path(f"/proc/{child.pid}/root/run/systemd/private").exists():
                return child.pid
        time.sleep(0.2)
    sys.exit("systemd does not start in systemd-nspawn")


@contextmanager
def booted(root: Path, seconds: float = 60) -> Iterator[Machine]:
    """Boot a root, and kill all that runs in it afterwards."""
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]
    command += ["--private-network", "--boot", f"--directory={root}"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield Machine(root, wait_for_systemd(process, time.monotonic() + seconds))
    finally:
        process.kill()
        process.wait()


def commands(heading: str) -> list[str]:
    """The lines of the first block of shell commands under a heading of the page."""
    page = (ROOT / "docs/deploy.md").read_text()
    block = page.split(f" {heading}\n")[1].split("```sh\n")[1].split("```")[0]
    return block.splitlines()


def set_up(vm: Machine) -> None:
    for line in commands("On a VM"):
        if "users add" in line:  # at a terminal it asks
            line = f"echo correct horse | {line} --password-stdin"
        vm.run(line, network="pip install" in line)
    for line in commands("nginx and TLS"):
        vm.run(line.replace("YOUR.NAME", SITE))


def log_in(name: str) -> str:
    body = f'{{"username": "{name}", "password": "correct horse"}}'
    return f"{CURL}/api/auth/login --json '{body}'"


def check_service(vm: Machine) -> None:
    vm.expect("^active\nactive\n$", "systemctl is-active latchkey nginx")
    vm.expect("User=latchkey", "systemctl show --property=User latchkey")
    vm.expect('^{"code":200,', f"{CURL}/healthz")
    redirect = f"curl --silent --head -H 'Host: {SITE}' http://127.0.0.1/docs"
    vm.expect(f"308 .*Location: https://{SITE}/docs\r?\n", redirect)
    vm.expect("alice", "latchkey users list")
    vm.expect('^{"code":200,', log_in("alice"))


def check_settings(vm: Machine) -> None:
    """The service and the wrapper read the same file in the same way."""
    (vm.root / "etc/latchkey.env").write_text(SETTINGS)
    (vm.root / "etc/latchkey.env").chmod(0o600)
    vm.run("systemctl restart latchkey")
    vm.expect('^{"code":401,', log_in("alice"))  # she is in the other database
    vm.run("echo correct horse | latchkey users add bob --password-stdin")
    vm.expect('^{"code":200,', log_in("bob"))
    vm.expect("^latchkey 600\n$", "stat --format='%U %a' /var/lib/latchkey/it*.db")


def check_timers(vm: Machine) -> None:
    """They wait for the night; what they start is done, and old backups are deleted."""
    waiting = "latchkey-backup.timer.*latchkey-prune.timer"
    vm.expect(waiting, "systemctl list-timers --no-pager")
    vm.run("systemctl start latchkey-prune")
    vm.run("systemctl start latchkey-backup")
    vm.run("touch --date='15 days ago' /var/backups/latchkey/old.db")
    vm.run("sleep 1; systemctl start latchkey-backup")
    backups = "stat --format='%n %U %a' /var/backups/latchkey /var/backups/latchkey/*"
    made = r"/var/backups/latchkey/[0-9T-]+\.db latchkey 600\n"
    vm.expect(f"^/var/backups/latchkey latchkey 700\n({made}){{2}}$", backups)


if __name__ == "__main__":
    main()
