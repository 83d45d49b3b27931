"""Do the README's two commands work on a Debian with python3-venv and nothing else?

    python -m bench.bare_debian [--user root] [--keep] [PYTEST'S ARGUMENTS ...]

Makes a bare Debian root with mmdebstrap, from this machine's own sources, copies the
tree into it, and runs `sh dev.sh test` there, then `sh dev.sh run` until /healthz
answers. There is no git, no compiler and no terminal. A test may be skipped only for
want of a program of the system, whose Debian package it names. The chroot needs root;
inside, an unprivileged user runs everything, unless --user says otherwise.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import httpx
from servers import free_port

from bench import ROOT

PACKAGES = "python3-venv,ca-certificates"
ABSENT = ("git", "cc", "gcc", "make", "curl")
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
NOT_COPIED = (".git", ".venv", "instance", "__pycache__", ".*_cache", ".coverage")
INSTALL = "apt-get install|pip install"  # two gateways are not in Debian
HOME = "/home/tester"
TREE = f"{HOME}/latchkey"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# What this machine needs to reach the package indexes is needed inside too.
NETWORK = re.compile(
    r"(https?|no)_proxy|PIP_(INDEX_URL|PROXY|TRUSTED_HOST|DEFAULT_TIMEOUT)"
    r"|npm_config_registry",
    re.IGNORECASE,
)
# In namespaces of its own: what is mounted and started there ends with it.
ENTER = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc"]
CHROOT = f"""
root=$1 user=$2 certificates=$3 command=$4
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount --bind "$certificates" "$root{CERTIFICATES}"
/usr/sbin/chroot --userspec="$user" "$root" sh -c "cd {TREE}; $command"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--user", choices=["tester", "root"], default="tester")
    parser.add_argument("--keep", action="store_true", help="leave the root there")
    arguments, for_pytest = parser.parse_known_args()
    if not shutil.which("mmdebstrap"):
        sys.exit("mmdebstrap is not installed: apt-get install mmdebstrap")
    if os.getuid() != 0:
        sys.exit("bench.bare_debian needs root, for its chroot")
    home = Path(mkdtemp(prefix="latchkey-debian-"))
    try:
        root = make_root(home)
        run_tests(root, arguments.user, for_pytest)
        run_service(root, arguments.user)
    finally:
        if not arguments.keep:
            shutil.rmtree(home)


def say(text: str) -> None:
    print(text, flush=True)


def make_root(home: Path) -> Path:
    """The path of a bare Debian root, with a user and the tree in it."""
    root = home / "root"
    home.chmod(0o755)
    started = time.monotonic()
    sources = [source for source in SOURCES if os.path.exists(source)]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
    command += [f"--aptopt={write_apt_options(home)}", suite(), root, *sources[:1]]
    subprocess.run(command, check=True)
    for name in ABSENT:
        if (root / "usr/bin" / name).exists():
            sys.exit(f"the root is not bare: {name} is in it")
    shutil.copy("/etc/resolv.conf", root / "etc")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    ignore = shutil.ignore_patterns(*NOT_COPIED)
    subprocess.run(["chroot", root, "useradd", "--create-home", "tester"], check=True)
    shutil.copytree(ROOT, f"{root}{TREE}", ignore=ignore)
    subprocess.run(["chroot", root, "chown", "-R", "tester:", TREE], check=True)
    seconds = time.monotonic() - started
    say(f"made a Debian {suite()} with {PACKAGES} in {root} in {seconds:.0f} s")
    return root


def suite() -> str:
    """The code name of this machine's Debian."""
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.M)
    return found[1] if found else "stable"


def write_apt_options(home: Path) -> Path:
    """A file with this machine's way to its mirror: proxies, checks of dates."""
    command = ["apt-config", "dump", "Acquire"]
    options = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wanted = re.findall(r"^Acquire::(?:https?|Check|Retries).*$", options, re.M)
    path = home / "apt.conf"
    path.write_text("\n".join([*wanted, ""]))
    return path


def start(root: Path, user: str, command: str, **environ: str) -> subprocess.Popen[str]:
    """Start a command of the shell inside, in the tree and without a terminal."""
    network = {name: text for name, text in os.environ.items() if NETWORK.match(name)}
    inside = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": HOME if user == "tester" else "/root",
        "PIP_CERT": CERTIFICATES,
        "SSL_CERT_FILE": CERTIFICATES,
        "NODE_EXTRA_CA_CERTS": CERTIFICATES,
    }
    certificates = os.environ.get("SSL_CERT_FILE", CERTIFICATES)
    return subprocess.Popen(
        [*ENTER, CHROOT, "sh", root, user, certificates, command],
        env=network | inside | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_tests(root: Path, user: str, for_pytest: list[str]) -> None:
    """Exit if a test fails, or is skipped for anything but a missing program."""
    say(f"sh dev.sh test, as {user}:")
    options = " ".join(["-rfEs", *for_pytest])
    process = start(root, user, "sh dev.sh test", PYTEST_ADDOPTS=options)
    output = ""
    for line in process.stdout or []:
        print(f"    {line}", end="", flush=True)
        output += line
    if process.wait() != 0:
        sys.exit("sh dev.sh test fails on a bare Debian")
    for reason in re.findall(r"^SKIPPED \[\d+\] (.*)$", output, re.M):
        if not re.search(INSTALL, reason):
            sys.exit(f"skipped, and no package is named: {reason}")


def run_service(root: Path, user: str, seconds: float = 120) -> None:
    """Exit unless `sh dev.sh run` serves within so many seconds."""
    say(f"sh dev.sh run, as {user}:")
    port = free_port()
    process = start(root, user, "sh dev.sh run", PORT=str(port))
    deadline = time.monotonic() + seconds
    status = 0
    while status != 200 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        with suppress(httpx.TransportError):
            status = httpx.get(f"http://127.0.0.1:{port}/healthz").status_code
    process.kill()  # with it dies all that runs in its namespaces
    output, _ = process.communicate()
    say("\n".join(f"    {line}" for line in output.splitlines()))
    if status != 200:
        sys.exit("sh dev.sh run does not serve on a bare Debian")
    say("/healthz answered 200")


if __name__ == "__main__":
    main()
