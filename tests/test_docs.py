"""The README and docs/ say what is so: their tables, links and limits are held here."""

import ast
import re
import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from urllib.parse import urlsplit

import psycopg
import pytest
from click.testing import CliRunner
from conftest import Person
from flask.cli import FlaskGroup
from oidc import settings
from servers import ROOT, disconnect, every_setting, prepared, program

import tokens
from app import create_app
from models.connections import ORM, VERIFICATION, connect, engine_options
from tools import reading

PAGES = ["README.md", "CHANGELOG.md", "bench/RESULTS.md", "deploy/gateway/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
HEAD = re.compile(r"^\| .+ \|\n\|[-|]+\|$", re.M)
ROW = re.compile(r"^\| (.+) \|$", re.M)


def page(name):
    return (ROOT / name).read_text()


def section(name, heading):
    """The text under a heading of the second level."""
    return page(name).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table(text):
    """The cells of each row, without the heads of the tables."""
    return [row.split(" | ") for row in ROW.findall(HEAD.sub("", text))]


# --- the README -----------------------------------------------------------------------


def test_the_readme_is_short():
    lines = page("README.md").splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 100] == []


def test_no_paragraph_of_the_readme_is_over_four_lines():
    prose = FENCED.sub("", page("README.md"))
    prose = re.sub(r"^(- |\|.*$)", "\n", prose, flags=re.M)
    paragraphs = [part.strip().splitlines() for part in re.split(r"\n{2,}", prose)]
    assert len(paragraphs) > 20
    assert [part for part in paragraphs if len(part) > 4] == []


@pytest.fixture
def complete_app():
    """Latchkey with all that is off by default."""
    return create_app(settings("https://id.example.org"))


def test_every_endpoint_is_named(complete_app):
    endpoints = section("README.md", "Endpoints")
    calls = [("any method", "/verify"), ("any method", "/verify/<anything>")]
    for rule in complete_app.url_map.iter_rules():
        if not rule.endpoint.endswith("static"):
            path = re.sub("<key_id:.*?>", "{id}", rule.rule)
            calls += [(method, path) for method in rule.methods - {"HEAD", "OPTIONS"}]
    for method, path in calls:
        named = rf"\| [^|]*{method} `?[^|]*{re.escape(path)}`"
        assert re.search(named, endpoints), f"{method} {path}"


def test_every_endpoint_that_is_named_exists(complete_app):
    methods_of = {}
    for rule in complete_app.url_map.iter_rules():
        path = re.sub("<key_id:.*?>", "{id}", rule.rule)
        methods_of.setdefault(path, set()).update(rule.methods)
    named = re.findall(r"`([A-Z]+) (/\S*)`", section("README.md", "Endpoints"))
    assert len(named) > 15
    for method, path in named:
        assert method in methods_of[path], f"{method} {path}"


def test_every_chosen_dependency_has_its_reason():
    lines = (ROOT / "requirements.in").read_text().splitlines()
    chosen = [re.split(r"\[|==", line)[0] for line in lines if not line.startswith("#")]
    rows = table(section("README.md", "Dependencies"))
    assert sorted(name for name, _ in rows) == sorted(chosen)
    assert all(len(reason) >= 20 for _, reason in rows)


# --- docs/ ----------------------------------------------------------------------------


def allowed(field):
    """The values of a setting, in the words of config.py."""
    [validator] = field.validators
    return validator.error.removeprefix("must be ").removeprefix("a number from ")


def test_the_table_of_settings_is_that_of_the_core_and_the_extras():
    rows = [row for row in table(page("docs/configuration.md")) if len(row) == 4]
    told = {
        name.strip("`"): (re.sub(r"`|\(empty\)", "", default), values)
        for name, default, values, _ in rows
    }
    fields = every_setting()
    assert told == {
        name: (str(field.load_default), allowed(field))
        for name, field in fields.items()
    }
    assert all(len(effect) > 20 for *_, effect in rows)


def test_a_worker_has_the_threads_and_connections_that_the_page_names():
    """Each thread may verify, and the session's pool has its own connections."""
    text = page("docs/configuration.md")
    [threads] = re.findall(r"^threads = (\d+)", page("gunicorn.conf.py"), re.M)
    assert threads == "4" and "each has four threads" in text
    options = engine_options("postgresql://host/name")
    most = int(threads) + options["pool_size"] + options["max_overflow"]
    assert f"A worker keeps at most {most} connections" in text
    assert f"A worker takes at most {most} connections" in page("docs/deploy.md")


ODD = {  # defaults of a database that Latchkey could not work with
    "client_encoding": "LATIN1",
    "DateStyle": "German",
    "TimeZone": "Asia/Tokyo",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "100ms",
    "lock_timeout": "90ms",
    "standard_conforming_strings": "off",
}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("limits", [ORM, VERIFICATION], ids=["orm", "verify"])
def test_what_the_database_has_set_is_without_effect(new_database_url, limits):
    name = urlsplit(new_database_url).path[1:]
    with psycopg.connect(new_database_url, autocommit=True) as other:
        for setting, value in ODD.items():
            other.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        other.execute(f"ALTER DATABASE {name} SET search_path = 'mine'")
    with closing(connect(new_database_url, limits)) as connection:

        def show(setting):
            return connection.execute(f"SHOW {setting}").fetchone()[0]

        for setting, value in ODD.items():
            assert show(setting).partition(",")[0] != value, setting
        assert show("statement_timeout") == "0"
        assert show("search_path") == "mine"


def test_every_command_is_named(app):
    groups = [app.cli.get_command(None, name) for name in ("users", "keys")]
    commands = {f"{group.name} {name}" for group in groups for name in group.commands}
    cells = [
        row[0] for row in table(section("docs/deploy.md", "The operator's commands"))
    ]
    named = {" ".join(cell.strip("`").split()[:2]) for cell in cells}
    single = {"audit --since", "prune --days", "prune --dry-run", "backup FILE"}
    assert named == {*commands, *single, "db upgrade"}


def test_a_vm_is_set_up_by_the_commands_of_the_unit():
    comments = re.findall("^#   (.*)$", page("deploy/latchkey.service"), re.M)
    assert len(comments) == 6
    for command in comments:
        assert command in section("docs/deploy.md", "On a VM"), command


def test_a_token_matches_the_regular_expression_for_scanners():
    found = re.search(
        r"A token matches `(\S+)` \(a session's .* `(\w+)`\)", page("docs/security.md")
    )
    pattern, session = found.groups()
    assert re.fullmatch(pattern, tokens.new_token("lk").text)
    assert re.fullmatch(pattern.replace("lk_", session), tokens.new_token("lks").text)


def test_the_reading_order_names_every_file_of_the_core_and_every_extra():
    text = page("docs/reading.md")
    named = re.findall(r"`([a-z_./]+\.py)`", text)
    parts = reading.parts()
    assert {*named} >= {*parts["core"]}
    assert [name for name in named if not (ROOT / name).exists()] == []
    shared = ("core", "extras/__init__.py", "extras/operator.py")
    extras = {part for part in parts if part not in shared}
    assert {
        row[0].strip("`") for row in table(section("docs/reading.md", "The extras"))
    } == extras


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_backup_is_made_and_restored_as_the_page_says(new_database_url, tmp_path):
    """And a copy of the file alone has lost what is in its -wal."""
    program("sqlite3", "sqlite3")
    text = section("docs/deploy.md", "Back up and restore")
    [made] = re.findall(r"^latchkey (backup) /var/backups/", text, re.M)
    [restored] = re.findall("^sqlite3 .*$", text, re.M)
    [backup] = re.findall(r"\.restore (\S+)\"", restored)
    restored = restored.replace(backup, str(tmp_path / "backup.db"))
    with prepared(new_database_url) as app:
        alice = Person(app, "alice")
        key = alice.key()
        file = next(tmp_path.glob("*.db"))

        def run(command):
            words = shlex.split(command.replace("latchkey.db", file.name))
            subprocess.run(words, cwd=tmp_path, check=True)

        def status():
            token = {"Authorization": f"Bearer {key['token']}"}
            return app.test_client().get("/verify", headers=token).status_code

        group = FlaskGroup(create_app=lambda: app, name="flask")
        copied = CliRunner().invoke(group, [made, str(tmp_path / "backup.db")])
        assert copied.exit_code == 0, copied.output
        path = f"/api/me/api-keys/{key['id']}"
        assert alice.call("DELETE", path).status_code == 200
        assert status() == 401
        copy = shutil.copy(file, tmp_path / "copy")
        with closing(sqlite3.connect(copy)) as database:
            revoked = "SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL"
            assert database.execute(revoked).fetchall() == [(0,)]
        disconnect(app)
        run(restored)
        assert status() == 200


# --- links and tests ------------------------------------------------------------------


def slug(heading):
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.lower())
    return text.strip().replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_resolves(name):
    text = FENCED.sub("", page(name))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        assert there.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCED.sub("", there.read_text()), re.M)
            assert anchor in map(slug, headings), link


def test_the_picture_is_1200_pixels_wide():
    header = (ROOT / "docs/account-page.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(header[16:20]) == 1200


@pytest.mark.parametrize("name", ["docs/guarantees.md", "docs/security.md"])
def test_every_row_names_tests_that_exist(name):
    rows = table(page(name))
    assert len(rows) > 20
    for *_, cell in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", cell)
        assert named, cell
        for file, test in named:
            tree = ast.parse((ROOT / "tests" / file).read_text())
            assert test in {getattr(node, "name", None) for node in tree.body}, cell


@pytest.mark.parametrize("file", ["test_attacks.py", "test_attacks_live.py"])
def test_no_attempt_is_left_out_of_the_page(file):
    tree = ast.parse((ROOT / "tests" / file).read_text())
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    tests = {name for name in tests if name.startswith("test_")}
    named = {*re.findall(rf"`{file}::(test_\w+)`", page("docs/security.md"))}
    assert named == tests
