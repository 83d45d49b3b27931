"""Three ways to run it, for real: nginx, systemd's unit, the Procfile; and dev.sh."""

import grp
import os
import pwd
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from urllib.parse import unquote

import httpx
import psutil
import pytest
import servers
import sqlalchemy as sa
from conftest import log_in
from servers import PASSWORD, ROOT, free_port, program, slow_clients, wait_for

from app import create_app
from models.audit_event import AuditEvent
from models.database import db

pytestmark = pytest.mark.live
BIN = Path(sys.executable).parent
CLEAN = {
    n: v
    for n, v in os.environ.items()
    if "LATCHKEY" not in n and n not in ("PORT", "CI")
}
CLEAN |= {"PATH": f"{BIN}:{os.environ['PATH']}", "LATCHKEY_BCRYPT_ROUNDS": "4"}


# --- nginx ----------------------------------------------------------------------------


@pytest.fixture
def behind_nginx(tmp_path):
    """A client of deploy/nginx.conf before any server."""
    with ExitStack() as stack:

        def start(url):
            nginx = stack.enter_context(servers.behind_nginx(url, tmp_path))
            # From an address that is not nginx's own, to tell the two apart.
            there = httpx.HTTPTransport(local_address="127.0.0.2")
            return stack.enter_context(httpx.Client(base_url=nginx, transport=there))

        yield start


@pytest.fixture
def session(serve, behind_nginx):
    """Alice's, at a real Latchkey behind nginx."""
    http = behind_nginx(serve(LATCHKEY_TRUSTED_PROXIES="1").url)
    token = log_in(http, "alice").json()["data"]["token"]
    http.headers["Authorization"] = f"Bearer {token}"
    return http


FORGED = (
    {},
    {"X-Forwarded-For": "6.6.6.6"},
    {"X-Forwarded-For": "6.6.6.6, 127.0.0.1"},
    {"X_Forwarded_For": "6.6.6.6"},
    {"Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"},
)
STRANGE = ("/", "//", "a//b", "%2f", "a%2Fb", "%0a", "..%2f..", "%ff", "x" * 2000)


class Echo(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(self.headers).encode())

    def log_message(self, *args):
        pass


def test_no_forged_address_gets_through_nginx(behind_nginx):
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever).start()
        try:
            http = behind_nginx(f"http://127.0.0.1:{echo.server_port}")
            for forged in FORGED[:4]:
                arrived = http.get("/", headers=forged).text
                assert "X-Forwarded-For: 127.0.0.2\n" in arrived
                assert "6.6.6.6" not in arrived
        finally:
            echo.shutdown()


def test_behind_nginx_the_true_address_is_written_down(session, sql):
    for forged in FORGED:
        bad = {"username": "alice", "password": "wrong"}
        answer = session.post("/api/auth/login", json=bad, headers=forged)
        assert answer.status_code == 401
        wanted = {"name": "script", "mode": "read", "password": PASSWORD}
        answer = session.post("/api/me/api-keys", json=wanted, headers=forged)
        key = answer.json()["data"]
        bearer = {"Authorization": f"Bearer {key['token']}", **forged}
        assert session.get("/verify", headers=bearer).headers["X-User-Name"] == "alice"
        answer = session.delete(f"/api/me/api-keys/{key['id']}", headers=forged)
        assert answer.status_code == 200
        assert session.get("/verify", headers=bearer).status_code == 401
    audited = sql(
        "SELECT event, ip FROM audit_events WHERE event <> 'signed_in' ORDER BY id"
    )
    events = ["login_failed", "created", "revoked", "auth_failed"]
    assert audited == [(event, "127.0.0.2") for _ in FORGED for event in events]
    assert sql("SELECT DISTINCT last_used_ip FROM api_keys") == [("127.0.0.2",)]


def test_behind_nginx_a_strange_id_is_one_more_unknown_key(session):
    for strange in STRANGE:
        answer = session.delete(f"/api/me/api-keys/{strange}")
        assert answer.status_code == 404, strange
        error = {"key": "id", "message": "not_found", "value": unquote(strange)[:100]}
        data = {"type": "validation_error", "errors": [error]}
        assert answer.json() == {
            "code": 404,
            "message": "api key not found",
            "data": data,
        }


def test_behind_nginx_slow_clients_hold_nobody_up(session):
    """Five hundred send a byte a second; nginx waits for them, gunicorn does not."""
    wanted = {"name": "script", "mode": "read", "password": PASSWORD}
    key = session.post("/api/me/api-keys", json=wanted).json()["data"]
    bearer, until = {"Authorization": f"Bearer {key['token']}"}, time.monotonic() + 4.5
    with slow_clients(str(session.base_url), 500):
        while time.monotonic() < until:
            assert session.get("/verify", headers=bearer, timeout=2).status_code == 200
            time.sleep(0.1)


def test_what_nginx_refuses_itself_never_arrives(session, sql):
    """A long body and a NUL: in nginx's own words, not in our envelope."""
    for refused, status in (
        (session.post("/api/auth/login", content=b"x" * 16_385), 413),
        (session.delete("/api/me/api-keys/%00"), 400),
    ):
        assert refused.status_code == status
        assert refused.headers["Content-Type"] == "text/html"
    largest = session.post("/api/auth/login", content=b"x" * 16_384)
    assert (largest.status_code, largest.json()["code"]) == (415, 415)  # no JSON
    assert sql("SELECT event FROM audit_events") == [("signed_in",)]  # the fixture's


def test_behind_nginx_a_verification_may_have_a_body_of_any_size(session):
    """It decides nothing, and a gateway may pass on what its client sent."""
    wanted = {"name": "script", "mode": "read", "password": PASSWORD}
    key = session.post("/api/me/api-keys", json=wanted).json()["data"]
    bearer = {"Authorization": f"Bearer {key['token']}"}
    for path in ("/verify", "/verify/any/path?scope=read"):
        answer = session.put(path, content=b"x" * 2_000_000, headers=bearer)
        assert (answer.status_code, answer.headers["X-Key-Id"]) == (200, key["id"])
    answer = session.get("/verified", headers=bearer)
    assert answer.status_code == 404


# TLS is the same before each database.
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SNAKEOIL = "/etc/ssl/{}/ssl-cert-snakeoil.{}"


@pytest.fixture
def certificate(tmp_path):
    """A certificate of our own, for the name in deploy/nginx.conf and this machine."""
    names = "subjectAltName=DNS:latchkey.example.com,IP:127.0.0.1"
    command = [program("openssl", "openssl"), "req", "-x509", "-nodes", "-days", "1"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-subj", "/CN=latchkey.example.com", "-addext", names]
    command += ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "certificate.pem"


@pytest.fixture
def with_tls(serve, certificate, tmp_path):
    """Clients of deploy/nginx.conf: by http and by https; its ports are changed."""
    http_port, https_port = free_port(), free_port()
    site = (ROOT / "deploy/nginx.conf").read_text()
    for shipped, ours in (
        ("\n    listen 80;", f"listen 127.0.0.1:{http_port};"),
        ("\n    listen [::]:80;", ""),
        ("\n    listen 443 ssl;", f"listen 127.0.0.1:{https_port} ssl;"),
        ("\n    listen [::]:443 ssl;", ""),
        (SNAKEOIL.format("certs", "pem"), str(certificate)),
        (SNAKEOIL.format("private", "key"), str(certificate.parent / "key.pem")),
    ):
        assert site.count(shipped) == 1
        site = site.replace(shipped, ours)
    url = serve(LATCHKEY_TRUSTED_PROXIES="1").url
    trust = ssl.create_default_context(cafile=certificate)
    with (
        servers.running_nginx(site, url, tmp_path),
        httpx.Client(base_url=f"http://127.0.0.1:{http_port}") as http,
        httpx.Client(base_url=f"https://127.0.0.1:{https_port}", verify=trust) as https,
    ):
        wait_for(f"http://127.0.0.1:{http_port}/")
        yield http, https


@sqlite_only
def test_http_is_redirected_to_https_and_nothing_else(with_tls):
    http, _ = with_tls
    for host in ("latchkey.example.com", "10.0.0.7"):
        for method in ("GET", "POST", "DELETE"):
            path = "/api/me/api-keys?page=2"
            answer = http.request(method, path, headers={"Host": host})
            assert answer.status_code == 308  # the method stays
            assert answer.headers["Location"] == f"https://{host}{path}"
            assert "latchkey" not in answer.text


@sqlite_only
def test_by_https_a_person_signs_in_and_latchkey_knows_that_it_is_https(with_tls):
    _, https = with_tls
    host = {"Host": "latchkey.example.com"}
    signed_in = https.post(
        "/api/session",
        json={"username": "alice", "password": PASSWORD},
        headers=host | {"Origin": "https://latchkey.example.com"},
    )
    assert signed_in.status_code == 200, signed_in.text
    assert "; Secure" in signed_in.headers["Set-Cookie"]
    metadata = https.get("/.well-known/oauth-authorization-server", headers=host)
    assert metadata.json()["issuer"] == "https://latchkey.example.com"


# --- systemd --------------------------------------------------------------------------

UNIT = (ROOT / "deploy/latchkey.service").read_text()


def setting(name):
    return re.search(rf"^{name}=(.*)$", UNIT, re.M)[1]


@pytest.fixture
def vm():
    """/opt/latchkey, which the service may not write to, and its /var/lib/latchkey."""
    home = Path(tempfile.mkdtemp(prefix="latchkey-vm-"))
    home.chmod(0o755)
    not_needed = shutil.ignore_patterns(".*", "__pycache__", "instance", "node_modules")
    shutil.copytree(ROOT, home / "opt", ignore=not_needed)
    (home / "opt/.venv").symlink_to(sys.prefix)
    (home / "state").mkdir(mode=int(setting("StateDirectoryMode"), 8))
    if os.getuid() == 0:
        shutil.chown(home / "state", "nobody")
    yield home
    shutil.rmtree(home)


def rewritten(vm, text):
    return text.replace("/opt/latchkey", f"{vm}/opt").replace(
        "/var/lib/latchkey", f"{vm}/state"
    )


def unprivileged():
    """What runs a command as nobody, who may read root's files if python is one."""
    if os.getuid() != 0:
        return []
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # Not another python's:
    same = f"import flask, re; assert re.__file__ == {re.__file__!r}"
    command = [*drop, sys.executable, "-c", same]
    if subprocess.run(command, capture_output=True).returncode:
        drop += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return drop


def test_systemd_takes_the_units(vm, wrapper):
    units = []
    for kind in ("service", "timer"):
        for shipped in (ROOT / "deploy").glob(f"*.{kind}"):
            units.append(vm / shipped.name)
            text = shipped.read_text().replace("/usr/local/bin/latchkey", str(wrapper))
            units[-1].write_text(rewritten(vm, text))
    assert len(units) == 5
    command = [program("systemd-analyze", "systemd"), "verify", "--man=no", *units]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("name", ["backup", "prune"])
def test_a_timer_elapses_once_a_night(name):
    timer = (ROOT / f"deploy/latchkey-{name}.timer").read_text()
    when = re.search(r"^OnCalendar=(.*)$", timer, re.M)[1]
    command = [program("systemd-analyze", "systemd"), "calendar", "--iterations=3"]
    told = subprocess.run([*command, when], capture_output=True, text=True, check=True)
    elapses = re.findall(r"(?:elapse|Iter.*): \w+ (\S+) (0\d):", told.stdout)
    assert len({day for day, _ in elapses}) == 3
    assert {hour for _, hour in elapses} <= {"03", "04"}


def test_the_unit_starts_says_that_it_is_ready_and_stops(vm):
    port, mask = free_port(), int(setting("UMask"), 8)
    environ = dict(
        pair.split("=", 1)
        for pair in shlex.split(rewritten(vm, setting("Environment")))
    )
    environ |= {
        "LATCHKEY_BIND": f"127.0.0.1:{port}",
        "NOTIFY_SOCKET": f"{vm}/state/notify",
    }
    environ["WEB_CONCURRENCY"] = "1"
    options = {
        "cwd": rewritten(vm, setting("WorkingDirectory")),
        "env": environ,
        "umask": mask,
    }

    def command(name):
        return [*unprivileged(), *shlex.split(rewritten(vm, setting(name)))]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(environ["NOTIFY_SOCKET"])
        systemd.settimeout(20)
        os.chmod(environ["NOTIFY_SOCKET"], 0o666)
        subprocess.run(command("ExecStartPre"), check=True, **options)
        process = subprocess.Popen(command("ExecStart"), **options)
        try:
            assert b"READY=1" in systemd.recv(1000)
            assert wait_for(f"http://127.0.0.1:{port}/healthz").status_code == 200
            me = psutil.Process(process.pid)
            if os.getuid() == 0:
                assert {p.uids().real for p in (me, *me.children())} == {65534}
            assert (vm / "state/latchkey.db").stat().st_mode & 0o777 == 0o600
        finally:
            process.terminate()
            status = process.wait(20)
    assert status == 0
    assert not (vm / "opt/instance").exists()


# --- the wrapper ----------------------------------------------------------------------

WRAPPER = ROOT / "deploy/latchkey"
SERVICE_USER = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


def wrapper_module():
    loader = SourceFileLoader("wrapper", str(WRAPPER))
    module = module_from_spec(spec_from_loader("wrapper", loader))
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = bytecode
    return module


@pytest.fixture
def wrapper(vm):
    """deploy/latchkey with the paths and the user of the test's machine."""
    text = WRAPPER.read_text().replace("/etc/latchkey.env", f"{vm}/latchkey.env")
    text = text.replace('USER = "latchkey"', f'USER = "{SERVICE_USER}"')
    (vm / "latchkey").write_text(rewritten(vm, text))
    (vm / "latchkey").chmod(0o755)
    return vm / "latchkey"


def run_wrapper(wrapper, *words, stdin="", before=(), **environ):
    """Root calls it; where nobody may not read this python, with that right."""
    drop = unprivileged()
    before = before or (drop if any("caps" in word for word in drop) else [])
    command = [*before, sys.executable, "-I", wrapper, *words]
    options = {"capture_output": True, "text": True, "env": CLEAN | environ}
    return subprocess.run(command, input=stdin, cwd="/", **options)


def settings_file(wrapper, text):
    """/etc/latchkey.env, for the one who calls only."""
    file = wrapper.parent / "latchkey.env"
    file.write_text(text)
    file.chmod(0o600)
    if any("caps" in word for word in unprivileged()):
        shutil.chown(file, SERVICE_USER)


def test_the_wrapper_runs_a_command_as_the_service_would(vm, wrapper):
    """As its user, with its file's settings, and with none of the caller's."""
    name = """it's `id` $HOME $(id) "x".db"""
    url = f"sqlite:///{vm}/state/{name}"
    escaped = re.sub(r'(["`$])', r"\\\1", url)
    settings_file(
        wrapper, f'# ours\nLATCHKEY_BCRYPT_ROUNDS=4\nDATABASE_URL="{escaped}"\n'
    )
    others = {"DATABASE_URL": "postgresql://nowhere/", "LATCHKEY_KEY_PREFIX": "BAD"}
    for words, stdin in (
        (["db", "upgrade"], ""),
        (["users", "add", "alice", "--password-stdin"], "correct horse\n"),
    ):
        ran = run_wrapper(wrapper, *words, stdin=stdin, **others)
        assert ran.returncode == 0, ran.stderr
    listed = run_wrapper(wrapper, "users", "list", **others)
    assert "alice" in listed.stdout
    file = (vm / "state" / name).stat()
    assert (file.st_uid, file.st_mode & 0o777) == (
        pwd.getpwnam(SERVICE_USER).pw_uid,
        0o600,
    )


def test_without_a_file_of_settings_the_wrapper_has_those_of_the_unit(vm, wrapper):
    assert run_wrapper(wrapper, "db", "upgrade").returncode == 0
    assert (vm / "state/latchkey.db").exists()
    failed = run_wrapper(wrapper, "users", "suspend", "nobody-of-that-name")
    assert failed.returncode != 0 and "nobody-of-that-name" in failed.stderr


TELLS = """#!/bin/sh
echo "$(id -un) $(id -gn) $(id -Gn)" "$PWD" "$(umask)" "$*"
exec env
"""


def test_the_command_has_the_user_and_nothing_of_the_caller(vm, wrapper):
    (vm / "opt/.venv").unlink()
    (vm / "opt/.venv/bin").mkdir(parents=True)
    flask = vm / "opt/.venv/bin/flask"
    flask.write_text(TELLS)
    flask.chmod(0o755)
    root = ["setpriv", "--groups=4,6"] if os.getuid() == 0 else []  # it is in others
    command = [*root, sys.executable, "-I", wrapper, "users", "add", "a b"]
    environ = {"PATH": "/usr/bin", "TERM": "linux", "PGPASSWORD": "root's"}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    who, *lines = ran.stdout.splitlines()
    user = pwd.getpwnam(SERVICE_USER)
    group = grp.getgrgid(user.pw_gid).gr_name
    groups = group if os.getuid() == 0 else " ".join(user_groups())
    expected = f"{SERVICE_USER} {group} {groups} {vm}/opt 0077 --app wsgi users add a b"
    assert who == expected
    shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    names = {line.partition("=")[0] for line in lines} - shell
    given = {"PATH", "HOME", "LOGNAME", "USER", "TERM"}
    assert names == given | wrapper_module().SETTINGS.keys()
    assert f"HOME={user.pw_dir}" in lines


def user_groups():
    command = ["id", "-Gn"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


def test_the_wrapper_and_the_unit_agree():
    module = wrapper_module()
    assert setting("User") == module.USER
    assert setting("WorkingDirectory") == module.HOME
    assert setting("EnvironmentFile") == f"-{module.SETTINGS_FILE}"
    words = shlex.split(setting("Environment"))
    assert dict(word.split("=", 1) for word in words) == module.SETTINGS


# Each was read by systemd 252 for a service, too, with these values.
READ = {
    "plain": ("A=b\nB=c", {"A": "b", "B": "c"}),
    "the last one counts": ("A=b\nA=c\n", {"A": "c"}),
    "nothing": ("A=\n", {"A": ""}),
    "space around": ("  A =  b c \t\n", {"A": "b c"}),
    "CRLF": ("A=b\r\nB='c'\r\n", {"A": "b", "B": "c"}),
    "comments": ("# A=1\n;B=2\n  #C=3\nD=4 # no comment\n", {"D": "4 # no comment"}),
    "no assignment": ("A\nexport B=1\n1C=2\n=3\nD=4", {"D": "4"}),
    "unquoted": ("A=it's $HOME `id` %\n", {"A": "it's $HOME `id` %"}),
    "backslashes": ("A=a\\ b\\\\c\\\nd\\ \n", {"A": "a b\\cd "}),
    "single quotes": ("A='a \"$b\" \\n # c' \n", {"A": 'a "$b" \\n # c'}),
    "double quotes": ('A="a \\"\\$b\\\\ \\n\\\n\'c"\n', {"A": "a \"$b\\ \\n'c"}),
    "several lines": ("A='b\nB=c'\nC=d", {"A": "b\nB=c", "C": "d"}),
    "several parts": ("A='b' \"c\" d 'e'\n", {"A": "bcd 'e'"}),
    "an escape at the end": ("A=b\\", {"A": "b"}),
}


@pytest.mark.parametrize("text, settings", READ.values(), ids=READ)
def test_the_wrapper_reads_settings_as_systemd_does(text, settings):
    assert wrapper_module().parse_settings(text) == settings


NOT_READ = {
    "no end": ("A=b\nB='c\nD=e\n", "the quote that begins in line 2 has no end"),
    "comment": ("# a\\\nB=c\n", "the comment in line 1 ends with a backslash"),
}


@pytest.mark.parametrize("text, words", NOT_READ.values(), ids=NOT_READ)
def test_the_wrapper_refuses_what_nobody_means(wrapper, text, words):
    settings_file(wrapper, text)
    ran = run_wrapper(wrapper, "users", "list")
    line = f"latchkey: {wrapper.parent}/latchkey.env: {words}\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", line)


def test_nobody_but_root_and_the_service_may_run_the_wrapper(wrapper):
    """Root becomes somebody; anybody else is one, where the service's user is root."""
    somebody = []
    if os.getuid() == 0:
        somebody = [word.replace("65534", "65533") for word in unprivileged()]
    else:
        text = wrapper.read_text()
        wrapper.write_text(text.replace(f'USER = "{SERVICE_USER}"', 'USER = "root"'))
    ran = run_wrapper(wrapper, "users", "list", before=somebody)
    assert (ran.returncode, ran.stderr) == (1, "latchkey: only root may run this\n")


# --- the Procfile ---------------------------------------------------------------------


@pytest.fixture
def honcho(new_database_url, tmp_path):
    """Runs one line of the Procfile as a PaaS does, with its environment variables."""
    port, started = free_port(), []
    environ = {
        **CLEAN,
        "DATABASE_URL": new_database_url.replace("postgresql:", "postgres:"),
        "PORT": str(port),
        "WEB_CONCURRENCY": "3",
    }

    def start(line):
        options = ["-e", tmp_path / "none", "-f", ROOT / "Procfile"]
        command = ["honcho", *options, "start", line]
        log = tmp_path / f"{line}.log"
        with log.open("wb") as out:
            started.append(
                subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out)
            )
        return started[-1], log

    start.port = port
    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def gunicorns(honcho):
    """Its master, and its workers."""
    inside = psutil.Process(honcho.pid).children(recursive=True)
    found = {p.pid: p for p in inside if p.name() == "gunicorn"}
    workers = [p for p in found.values() if p.ppid() in found]
    return [p for p in found.values() if p not in workers], workers


def test_the_procfile_migrates_serves_on_port_and_stops(honcho, new_database_url):
    release, log = honcho("release")
    assert release.wait(60) == 0, log.read_text()
    web, log = honcho("web")
    answer = wait_for(f"http://127.0.0.1:{honcho.port}/healthz")
    # The tables are there.
    assert (answer.status_code, answer.json()["message"]) == (200, "ok")
    # The router adds the last address.
    forwarded = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7"}
    bad = {"username": "a", "password": "wrong"}
    log_in = f"http://127.0.0.1:{honcho.port}/api/auth/login"
    httpx.post(log_in, json=bad, headers=forwarded)
    with create_app({"DATABASE_URL": new_database_url}).app_context():
        assert db.session.scalars(sa.select(AuditEvent.ip)).all() == ["192.0.2.7"]
        db.session.remove()
        db.engine.dispose()
    for _ in range(100):
        if len(gunicorns(web)[1]) == 3:
            break
        time.sleep(0.05)
    time.sleep(1)  # they have started, and one too many would have come by now
    (master,), workers = gunicorns(web)
    assert len(workers) == 3
    listening = {c.laddr for c in master.net_connections() if c.status == "LISTEN"}
    assert listening == {("0.0.0.0", honcho.port)}
    web.terminate()
    assert web.wait(20) == 143  # honcho's own word for SIGTERM
    output = log.read_text()
    assert "Shutting down: Master" in output and "SIGKILL" not in output, output
    assert psutil.wait_procs([master, *workers], timeout=5)[1] == []


# --- dev.sh ---------------------------------------------------------------------------


def python(statement):
    """A shell script in place of python3, which dev.sh calls with -c."""
    return f"""exec {sys.executable} -c "import sys; {statement}; $2" """


PYTHONS = {
    "missing": "exit 127",
    "too old": python("sys.version_info = (3, 10)"),
    "no venv": python("sys.modules['venv'] = None"),
    "no pip": python("sys.modules['ensurepip'] = None"),
}


def dev_sh_run(home, **environ):
    shutil.copy(ROOT / "dev.sh", home)
    command = ["/bin/sh", "dev.sh", "run"]
    options = {"env": CLEAN | environ, "capture_output": True, "text": True}
    return subprocess.run(command, cwd=home, **options)


@pytest.mark.parametrize("script", PYTHONS.values(), ids=PYTHONS)
def test_what_is_missing_is_said_in_one_line_with_its_package(tmp_path, script):
    (tmp_path / "python3").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "python3").chmod(0o755)
    ran = dev_sh_run(tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin")
    needed = "latchkey needs python3 3.11 or newer with venv: "
    needed += "apt-get install python3-venv\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", needed)
    assert not (tmp_path / ".venv").exists()


def test_an_installation_that_was_cut_short_is_made_again_and_one_that_fails_ends_it(
    tmp_path,
):
    (tmp_path / "requirements.txt").write_text("-r nowhere.txt\n")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / ".venv"], check=True)
    for script in (tmp_path / ".venv/bin").glob("pip*"):
        script.unlink()  # its package is there: ensurepip alone would make none
    ran = dev_sh_run(tmp_path, PYTHON=sys.executable)
    assert (tmp_path / ".venv/bin/pip").exists()
    assert ran.returncode == 1
    assert "nowhere.txt" in ran.stderr and "flask" not in ran.stderr
