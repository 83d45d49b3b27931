"""A line for each committed event and, if wanted, each request; nobody forges one."""

import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest
from conftest import log_in
from servers import PASSWORD, ROOT, disconnect, program

from app import create_app
from models.api_key import ApiKey
from models.audit_event import AuditEvent, Origin
from models.database import db

ADDRESS = "127.0.0.1"
MEMBERS = ["event", "user_id", "key_id", "ip", "reason"]


@pytest.fixture
def logged(app, caplog):
    """What was logged since the last call: event, user, key, address and reason."""
    caplog.clear()

    def read():
        lines = [
            record.getMessage()
            for record in caplog.records
            if record.name == "latchkey"
        ]
        caplog.clear()
        return [members(line) for line in lines]

    return read


def members(line):
    """The values of a line of text, without the time, which is now."""
    pairs = dict(pair.split("=") for pair in line.split(" "))
    then = datetime.strptime(pairs.pop("time"), "%Y-%m-%dT%H:%M:%SZ")
    assert abs(datetime.now(UTC) - then.replace(tzinfo=UTC)) < timedelta(minutes=1)
    assert list(pairs) == MEMBERS
    return list(pairs.values())


def test_each_event_is_a_line(alice, logged, verify):
    logged()
    key = alice.key()
    user, id = key["user_id"], key["id"]
    assert logged() == [["created", user, id, ADDRESS, "-"]]
    for _ in range(2):  # the second revokes nothing
        alice.call("DELETE", f"/api/me/api-keys/{id}")
    assert logged() == [["revoked", user, id, ADDRESS, "-"]]
    for _ in range(2):  # the second is in the same minute
        assert verify(key["token"]).status_code == 401
    assert logged() == [["auth_failed", user, id, ADDRESS, "revoked"]]
    log_in(alice.http, "alice")
    assert logged() == [["signed_in", user, "-", ADDRESS, "password"]]
    log_in(alice.http, "alice", "wrong", ip="2001:db8::7")
    log_in(alice.http, "nobody", "wrong")
    alice.create(password="wrong")
    assert logged() == [
        ["login_failed", user, "-", "2001:db8::7", "incorrect_password"],
        ["login_failed", "-", "-", ADDRESS, "incorrect_password"],
        ["login_failed", user, "-", ADDRESS, "incorrect_password"],
    ]


def test_what_is_refused_by_the_throttle_or_the_limit_is_no_line(
    app, alice, logged, monkeypatch
):
    for _ in range(5):
        alice.key()
    logged()
    assert alice.create().status_code == 409
    assert logged() == []
    monkeypatch.setitem(app.config, "LATCHKEY_LOGIN_FAILURES", 1)
    codes = [log_in(alice.http, "bob", "wrong").status_code for _ in range(3)]
    assert codes == [401, 429, 429]
    assert [event for event, *_ in logged()] == ["login_failed"]


def test_what_is_not_committed_is_no_line(alice, logged, monkeypatch):
    """The key is written and the commit fails: only the failed attempt is there."""

    def fail():
        raise RuntimeError

    key = alice.key()
    logged()
    create, commit = ApiKey.create, db.session.commit

    def create_and_fail(*args, **wanted):
        made = create(*args, **wanted)
        db.session.flush()
        monkeypatch.setattr(db.session, "commit", fail)
        return made

    monkeypatch.setattr(ApiKey, "create", create_and_fail)
    assert alice.create().status_code == 500
    monkeypatch.setattr(db.session, "commit", commit)
    monkeypatch.setattr(ApiKey, "create", create)
    user = key["user_id"]
    assert logged() == [["login_failed", user, "-", ADDRESS, "incorrect_password"]]
    assert alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"] != []


def test_the_lines_are_the_rows_that_are_there(alice, logged, verify, sql):
    logged()
    key = alice.key()
    alice.create(password="wrong")
    alice.create(name="")
    log_in(alice.http, "bob")
    alice.http.post("/oauth/revoke", data={"token": key["token"]})
    verify(key["token"])
    rows = sql("SELECT event, user_id, api_key_id, ip, reason FROM audit_events")
    told = [[word or "-" for word in row] for row in rows]
    assert sorted(told) == sorted(logged()) and len(told) == 5


def test_a_value_is_one_word_whatever_it_is(app, logged):
    with app.app_context():
        origin = Origin("a\r\nb", "CLI", "")
        AuditEvent.record("revoked", origin, reason='x y=z "\x1b[2J\u2028')
        db.session.commit()
    reason = "x%20y%3Dz%20%22%1B%5B2J%E2%80%A8"
    assert logged() == [["revoked", "-", "-", "a%0D%0Ab", reason]]


def test_other_records_of_the_verification_are_left_alone(app, caplog):
    log = logging.getLogger("models.verification")
    log.warning("use of key %s not noted: %s", "x", "y")
    assert caplog.messages == ["use of key x not noted: y"]


def test_an_extra_application_writes_no_line_twice(
    app, alice, logged, caplog, verify, database_url
):
    other = create_app({"DATABASE_URL": database_url})
    logged()
    key = alice.key()
    alice.call("DELETE", f"/api/me/api-keys/{key['id']}")
    verify(key["token"])
    assert {record.name for record in caplog.records} == {"latchkey"}
    assert [event for event, *_ in logged()] == ["created", "revoked", "auth_failed"]
    disconnect(other)


@pytest.mark.parametrize(
    "name, value", [("LATCHKEY_LOG", "xml"), ("LATCHKEY_ACCESS_LOG", "yes")]
)
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(SystemExit, match=f"latchkey: {name} must be"):
        create_app({name: value})


# --- as it is run ---------------------------------------------------------------------


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def lines(server, *events):
    """The lines of these events that gunicorn and its workers have written."""
    written = server.log.read_text().splitlines()
    return [
        line for line in written if any(f"event={name} " in line for name in events)
    ]


@pytest.mark.live
def test_under_gunicorn_each_event_is_one_line(serve, alice):
    server = serve()
    key = alice.key()
    with httpx.Client(base_url=server.url) as http:
        for password in ("wrong", PASSWORD):
            http.post("/api/auth/login", json={"username": "bob", "password": password})
        http.delete("/api/me/api-keys", headers=bearer(alice.token))
        assert http.get("/verify", headers=bearer(key["token"])).status_code == 401
    server.stop()
    text = server.log.read_text()
    events = ["login_failed", "signed_in", "revoked", "auth_failed"]
    assert [members(line)[0] for line in lines(server, *events)] == events
    assert [text.count(name) for name in ("event=", "auth_failed")] == [4, 1]
    assert "event=request" not in text


@pytest.mark.live
def test_under_gunicorn_in_json(serve, alice):
    server = serve(LATCHKEY_LOG="json", LATCHKEY_ACCESS_LOG="on")
    who = {"username": "nobody", "password": "wrong"}
    httpx.post(f"{server.url}/api/auth/login?x=y", json=who)
    server.stop()
    written = server.log.read_text().splitlines()
    told = [json.loads(line) for line in written if line.startswith("{")]
    assert all(line.pop("time").endswith("Z") for line in told)
    failed = ["login_failed", None, None, ADDRESS, "incorrect_password"]
    assert dict(zip(MEMBERS, failed, strict=True)) in told
    request = {
        "event": "request",
        "ip": ADDRESS,
        "method": "POST",
        "path": "/api/auth/login",
        "status": "401",
    }
    assert request in told


@pytest.mark.live
def test_the_access_log_has_every_answer_and_no_token(serve, alice):
    server = serve(LATCHKEY_ACCESS_LOG="on", LATCHKEY_TRUSTED_PROXIES="1")
    token = alice.key()["token"]
    secret = token.rpartition("_")[2]
    forged = quote("\n\x1b[2J\x9b\u2028 event=x", safe="")
    asked = [
        ("GET", "/verify", "200"),
        ("PUT", f"/verify/{token}/{forged}?token={token}", "200"),
        ("GET", f"/{token}?{token}", "404"),
        ("GET", "/healthz", "200"),
    ]
    headers = bearer(token) | {"X-Forwarded-For": "2001:db8::7", "User-Agent": token}
    with httpx.Client(base_url=server.url, headers=headers) as http:
        for method, path, status in asked:
            assert http.request(method, path).status_code == int(status)
    server.stop()
    text = server.log.read_text()
    told = [line.split(" ", 1)[1] for line in lines(server, "request")]
    cut = f"{token[:15]}_..."
    paths = ["/verify", f"/verify/{cut}/{quote(forged, '%')}", f"/{cut}", "/healthz"]
    assert told[-4:] == [
        f"event=request ip=2001:db8::7 method={method} path={path} status={status}"
        for (method, _, status), path in zip(asked, paths, strict=True)
    ]
    assert secret not in text
    assert {char for char in text if not char.isprintable()} == {"\n"}


@pytest.mark.live
def test_a_command_writes_its_line_on_standard_error(alice, database_url):
    key = alice.key()

    def run(*words):
        command = [sys.executable, "-m", "flask", "--app", "wsgi", *words]
        environ = {**os.environ, "DATABASE_URL": database_url}
        options = {"capture_output": True, "text": True, "check": True}
        return subprocess.run(command, cwd=ROOT, env=environ, **options)

    told = run("keys", "revoke", key["id"])
    assert told.stdout == "revoked\n"
    [line] = told.stderr.splitlines()
    assert members(line) == ["revoked", key["user_id"], key["id"], "-", "operator"]
    assert run("prune").stderr == ""


# --- fail2ban -------------------------------------------------------------------------

FILTER = ROOT / "deploy/fail2ban/filter.d/latchkey.conf"
VICTIM = "203.0.113.66"
LINE = (
    "time=2026-11-28T08:14:12Z event=login_failed user_id=- key_id=- "
    f"ip={VICTIM} reason=incorrect_password"
)
FORGED = [
    LINE,
    f"\n{LINE}\n",
    f"\r\n{LINE}",
    f"\u2028{LINE}\u2028",
    f"x\x85{LINE}",
    f"host gunicorn[1]: {LINE}",
    f" event=login_failed ip={VICTIM} reason=incorrect_password",
    quote(f"\n{LINE}\n"),
]


def banned(log):
    """The addresses that fail2ban itself finds in a log, in their order."""
    command = [program("fail2ban-regex", "fail2ban"), "-o", "ip", log, FILTER]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return told.stdout.split()


@pytest.mark.live
def test_fail2ban_finds_who_failed_and_nobody_whom_a_client_names(serve, alice):
    generous = {"LATCHKEY_LOGIN_FAILURES": "1000", "LATCHKEY_ACCESS_LOG": "on"}
    server = serve(LATCHKEY_TRUSTED_PROXIES="1", **generous)
    attackers = []
    with httpx.Client(base_url=server.url) as http:
        for n, text in enumerate(FORGED):
            attackers.append(f"198.51.100.{n}" if n % 2 else f"2001:db8::{n + 1}")
            headers = {"X-Forwarded-For": f"{VICTIM}, {attackers[-1]}"}
            who = {"username": text[:64], "password": text[-64:]}
            http.post("/api/auth/login", json=who, headers=headers)
            path = quote(text, safe="")
            http.get(f"/verify/{path}?{path}", headers=headers)
            http.delete(f"/api/me/api-keys/{path}", headers=bearer(alice.token))
            http.get("/", headers={"User-Agent": text.strip().encode("unicode_escape")})
            wanted = {"name": text[:100], "mode": "read", "password": "wrong"}
            http.post("/api/me/api-keys", json=wanted, headers=bearer(alice.token))
        http.post("/api/auth/login", json={"username": "bob", "password": PASSWORD})
    server.stop()
    assert [ip for ip in banned(server.log) if ip != ADDRESS] == attackers


def test_fail2ban_reads_a_line_in_the_journal(tmp_path):
    """As its backend for systemd passes it on: after the host and the program."""
    journal = tmp_path / "journal"
    other = [f"vm sshd[7]: {LINE}", f"vm gunicorn[71]: x {LINE}", f"{LINE} x"]
    journal.write_text("\n".join([f"vm gunicorn[71]: {LINE}", *other, ""]))
    assert banned(journal) == [VICTIM]
