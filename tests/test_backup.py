"""flask backup: a copy that can be restored, or nothing at all."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from click.testing import CliRunner
from conftest import Person
from flask.cli import FlaskGroup
from servers import ROOT, disconnect, prepared, program

from app import create_app
from extras.maintenance import backup
from models.database import db

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def flask(app):
    def run(*words):
        group = FlaskGroup(create_app=lambda: app, name="flask")
        return CliRunner().invoke(group, [str(word) for word in words])

    return run


def rows(file, query):
    with closing(sqlite3.connect(file)) as copy:
        return copy.execute(query).fetchall()


@sqlite_only
def test_it_copies_everything_for_its_owner_only(flask, alice, tmp_path):
    key = alice.key()
    file = tmp_path / "backup.db"
    old = os.umask(0)
    try:
        told = flask("backup", file)
    finally:
        os.umask(old)
    said = f"{file}: 3 users, integrity checked\n"
    assert (told.exit_code, told.output) == (0, said)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["backup.db"]
    assert rows(file, "SELECT id FROM api_keys") == [(key["id"],)]
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]


@sqlite_only
def test_a_restored_backup_is_what_the_service_was(new_database_url, tmp_path):
    """Restored by sqlite3, as docs/deploy.md says, over a database that lost all."""
    program("sqlite3", "sqlite3")
    file = tmp_path / "backup.db"
    with prepared(new_database_url) as app:
        alice = Person(app, "alice")
        key, revoked = alice.key(), alice.key()
        alice.call("DELETE", f"/api/me/api-keys/{revoked['id']}")
        group = FlaskGroup(create_app=lambda: app, name="flask")
        assert CliRunner().invoke(group, ["backup", str(file)]).exit_code == 0
        with app.app_context():
            for table in ("api_keys", "sessions", "audit_events"):
                db.session.execute(db.text(f"DELETE FROM {table}"))
            db.session.commit()
        disconnect(app)
        path = new_database_url.removeprefix("sqlite:///")
        subprocess.run(["sqlite3", path, f".restore {file}"], check=True)
        http = app.test_client()
        codes = []
        for each in (key, revoked):
            bearer = {"Authorization": f"Bearer {each['token']}"}
            codes.append(http.get("/verify", headers=bearer).status_code)
        assert codes == [200, 401]
        assert alice.call("GET", "/api/me").status_code == 200


@sqlite_only
def test_while_the_service_writes_the_copy_is_of_one_moment(
    flask, database_url, sql, tmp_path
):
    """A writer moves one unit between two rows: the sum is the same at each commit."""
    path = database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as setup:
        setup.execute("CREATE TABLE pair (name, value)")
        setup.execute("INSERT INTO pair VALUES ('a', 0), ('b', 0)")
        filler = "INSERT INTO pair SELECT hex(randomblob(2000)), 0 FROM api_keys"
        setup.execute(filler)
        setup.commit()
    done, commits = threading.Event(), []

    def write():
        with closing(sqlite3.connect(path, timeout=10)) as other:
            while not done.is_set():
                for name, step in (("a", 1), ("b", -1)):
                    update = "UPDATE pair SET value = value + ? WHERE name = ?"
                    other.execute(update, (step, name))
                other.commit()
                commits.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            before = len(commits)
            file = tmp_path / f"{number}.db"
            assert flask("backup", file).exit_code == 0
            assert rows(file, "SELECT sum(value) FROM pair") == [(0,)]
            while len(commits) == before:
                pass
    finally:
        done.set()
        writer.join()
        sql("DROP TABLE pair")


@sqlite_only
@pytest.mark.parametrize("what", ["file", "empty", "folder", "link", "the database"])
def test_nothing_that_exists_is_overwritten(flask, database_url, tmp_path, what):
    file = tmp_path / "backup.db"
    if what == "file":
        file.write_text("precious")
    elif what == "empty":
        file.touch()
    elif what == "folder":
        file.mkdir()
    elif what == "link":
        file.symlink_to(database_url.removeprefix("sqlite:///"))
    else:
        file = database_url.removeprefix("sqlite:///")
    told = flask("backup", file)
    assert told.exit_code == 1
    assert told.output.startswith("Error: [Errno 17] File exists: ")
    if what == "file":
        assert file.read_text() == "precious"
    assert flask("users", "list").exit_code == 0


@sqlite_only
def test_a_copy_that_is_damaged_is_not_left_behind(new_database_url, tmp_path):
    path = new_database_url.removeprefix("sqlite:///")
    with prepared(new_database_url) as app:
        with app.app_context():
            db.session.execute(db.text("PRAGMA wal_checkpoint(TRUNCATE)"))
        disconnect(app)
    with closing(sqlite3.connect(path)) as database:
        page = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_audit_events_name'"
        [(number,)] = database.execute(page)
        [(size,)] = database.execute("PRAGMA page_size")
    with open(path, "r+b") as database:
        database.seek((number - 1) * size)
        database.write(b"\xff" * 100)
    folder = tmp_path / "backups"
    folder.mkdir()
    app = create_app({"DATABASE_URL": new_database_url})
    group = FlaskGroup(create_app=lambda: app, name="flask")
    told = CliRunner().invoke(group, ["backup", str(folder / "b.db")])
    disconnect(app)
    assert told.exit_code == 1
    assert told.output.startswith("Error: no backup: ")
    assert os.listdir(folder) == []


@sqlite_only
def test_a_backup_that_is_cut_short_leaves_nothing(flask, tmp_path, monkeypatch):
    class Interrupted(sqlite3.Connection):
        def execute(self, *words):
            if "integrity" in words[0]:
                raise KeyboardInterrupt
            return super().execute(*words)

    def connect(file):
        return Interrupted(file)

    monkeypatch.setattr(backup.sqlite3, "connect", connect)
    assert flask("backup", tmp_path / "b.db").exit_code == 1
    assert os.listdir(tmp_path) == []


@sqlite_only
@pytest.mark.parametrize("file", ["/nowhere/b.db", "/proc/b.db", ""])
def test_where_nothing_can_be_written_it_says_so_in_one_line(flask, file):
    told = flask("backup", file)
    assert told.exit_code == 1
    assert told.output.startswith("Error: [Errno ") and told.output.count("\n") == 1


@sqlite_only
@pytest.mark.live
def test_with_too_little_room_nothing_is_left(app, database_url, tmp_path):
    file = tmp_path / "b.db"

    def less_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))  # bytes

    told = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "backup", str(file)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        preexec_fn=less_room,
        capture_output=True,
        text=True,
    )
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("Error: no backup: ")
    assert told.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_of_postgresql_it_names_pg_dump(flask, tmp_path):
    told = flask("backup", tmp_path / "b.db")
    said = "Error: this is PostgreSQL: use its pg_dump\n"
    assert (told.exit_code, told.output) == (1, said)
    assert os.listdir(tmp_path) == []
