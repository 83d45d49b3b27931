"""Whatever an operator types: one line says what is wrong, never a traceback."""

import os
import pty
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from flask.cli import FlaskGroup
from servers import ROOT, first_of

FLASK = [sys.executable, "-m", "flask", "--app", "wsgi"]
ODD = [
    "users",
    "users frob",
    "users add",
    "users add alice bob",
    "users add --password-stdin",
    "users add -x",
    "users add \u0430lice",
    "users add alice' OR '1'='1",
    "users suspend",
    "users suspend ALICE;",
    "users suspend *",
    "users suspend caf\udce9",
    "users suspend \x1b[31mbob",
    "users restore \u202eecila",
    "users password nobody",
    "users list extra",
    "keys list --user",
    "keys list --user %",
    "keys list --user caf\udce9",
    "keys list --expiring x",
    "keys list --expiring -1",
    "keys list --expiring 99999999999999999999",
    "keys list --frob",
    "keys create",
    "keys create alice",
    "keys create nobody x --mode read",
    "keys create alice x --mode READ!",
    "keys create alice x --mode read --days 1e3",
    "keys create alice x --mode read --days 99999999999999999999",
    "keys create alice caf\udce9 --mode read",
    "keys create caf\udce9 x --mode read",
    "keys revoke",
    "keys revoke x y",
    "keys revoke lk_",
    "keys revoke lk_5wJbxlJ5m1dG",
    "keys revoke 00000000-0000-0000-0000-000000000000",
    "keys revoke ------------------------------------",
    "keys revoke caf\udce9",
    "keys revoke lk_5wJbxlJ5m1dG_caf\udce9",
    "keys revoke --user",
    "keys revoke --token-stdin",
    "audit extra",
    "audit --user nobody",
    "audit --key lk_",
    "audit --key lk_5wJbxlJ5m1dG",
    "audit --event caf\udce9",
    "audit --since tomorrow",
    "audit --since 2026-02-30",
    "prune extra",
    "prune --days 0",
    "prune --days --dry-run",
    "backup",
    "backup a b",
    "backup /nowhere/b.db",
    "backup /",
]


@pytest.mark.parametrize("words", ODD, ids=ascii)
def test_what_is_wrong_is_told_in_words(app, sql, words):
    group = FlaskGroup(create_app=lambda: app, name="flask")
    told = CliRunner().invoke(group, words.split(" "))
    assert isinstance(told.exception, SystemExit)  # click's own, with a status
    assert told.exit_code in (1, 2)
    if words != "users":  # which shows its help
        assert told.stdout == ""
        assert told.stderr.splitlines()[-1].startswith("Error: ")
    assert not any(mark in told.stderr for mark in ("\x1b", "\u202e", "codec", "sqla"))
    for table in ("audit_events", "api_keys"):
        assert sql(f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_time_far_away_is_no_error(app):
    group = FlaskGroup(create_app=lambda: app, name="flask")
    for text in ("0001-01-01", "9999-12-31T23:59:59Z"):
        assert CliRunner().invoke(group, ["audit", "--since", text]).exit_code == 0


# --- a process of its own -------------------------------------------------------------


def run(database_url, words, **streams):
    environ = {**os.environ, "DATABASE_URL": database_url}
    return subprocess.run(
        [*FLASK, *words.split()], cwd=ROOT, env=environ, text=True, **streams
    )


def at_a_terminal(database_url, words, typed):
    """The exit status and the output, if somebody types these at the prompts."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.environ["DATABASE_URL"] = database_url
        os.execv(sys.executable, [*FLASK, *words.split()])
    output, prompts = b"", 0
    while True:
        try:
            output += os.read(terminal, 4096)
        except OSError:  # it has ended
            break
        if output.endswith(b": ") and output.count(b": ") > prompts:
            time.sleep(0.2)  # until the terminal shows nothing
            os.write(terminal, typed[prompts])
            prompts += 1
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), output.decode()


@pytest.mark.live
@pytest.mark.parametrize("words", first_of(["users add dave", "users password alice"]))
@pytest.mark.parametrize(
    "typed, said",
    [
        ([b"\x04"], "Aborted!"),
        ([b"password-123\n", b"\x04"], "Aborted!"),
        ([b"caf\xe9-12345\n"], "Error: standard input is not UTF-8"),
        ([b"short\n"] * 2, "a password has at least 8 characters"),
        ([b"\x1b[A\x1b[A\x1b[A\n"] * 2, "a password has no control characters"),
    ],
    ids=["Ctrl-D", "Ctrl-D later", "Latin-1", "short", "arrows"],
)
def test_at_a_terminal(app, sql, database_url, words, typed, said):
    code, output = at_a_terminal(database_url, words, typed)
    assert code in (1, 2)
    assert output.rstrip().endswith(said)
    assert "Traceback" not in output and "/" not in output
    assert sql("SELECT count(*) FROM audit_events") == [(0,)]


@pytest.mark.live
def test_a_good_password_at_a_terminal_is_taken(app, database_url):
    typed = [b"password-123\n"] * 2
    code, output = at_a_terminal(database_url, "users add dave", typed)
    assert code == 0
    assert "dave: user added" in output.splitlines()
    assert "password-123" not in output


@pytest.mark.live
def test_without_a_terminal_it_says_what_to_do(app, database_url):
    nothing = {"stdin": subprocess.DEVNULL, "capture_output": True}
    told = run(database_url, "users add dave", start_new_session=True, **nothing)
    assert told.returncode == 2
    said = "Error: without a terminal use --password-stdin"
    assert told.stderr.splitlines()[-1] == said
    assert "Warning" not in told.stderr and ".py" not in told.stderr


@pytest.mark.live
@pytest.mark.parametrize(
    "words", first_of(["keys revoke --token-stdin", "users add dave --password-stdin"])
)
def test_a_standard_input_that_is_closed_is_an_empty_one(app, database_url, words):
    told = run(database_url, words, preexec_fn=lambda: os.close(0), capture_output=True)
    assert told.returncode in (1, 2)
    assert "Traceback" not in told.stderr
    assert told.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.live
def test_a_key_whose_token_cannot_be_printed_is_not_made(app, database_url, sql):
    with open("/dev/full", "w") as full:
        words = "keys create alice x --mode read"
        told = run(database_url, words, stdout=full, stderr=subprocess.PIPE)
    assert told.returncode != 0
    assert told.stderr.startswith("Error: [Errno 28] No space left on device\n")
    assert "Traceback" not in told.stderr
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]


@pytest.mark.live
def test_a_terminal_without_unicode_shows_what_it_can(app, database_url, alice):
    alice.key(name="\u65e5\u672c caf\u00e9")
    environ = {**os.environ, "DATABASE_URL": database_url}
    environ["PYTHONIOENCODING"] = "latin-1"
    told = subprocess.run(
        [*FLASK, "keys", "list"], cwd=ROOT, env=environ, capture_output=True, check=True
    )
    assert told.stdout.endswith(b"  \\u65e5\\u672c caf\xe9\n")
