"""The migrations make exactly the tables of the models, and lose nothing on the way."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import sqlalchemy as sa
from conftest import Person, crowd
from flask_migrate import check
from servers import PASSWORD, Server, flask, prepared

from models.base import db

TABLES = ("users", "sessions", "api_keys", "audit_events")


def test_flask_db_check_finds_nothing(app):
    with app.app_context():
        check()


def everything(app):
    """All rows of all tables, but for the time of a user's last proof."""
    with app.app_context():
        query = "SELECT {} FROM {}".format
        columns = {"users": "id, username, password_hash, created_at, suspended_at"}
        found = {
            table: db.session.execute(sa.text(query(columns.get(table, "*"), table))).all()
            for table in TABLES
        }
        return {table: sorted(map(repr, rows)) for table, rows in found.items()}


def life(url, session, over):
    """Make a key, use it, kill it, until it is over; every answer."""
    codes = []
    with httpx.Client(base_url=url, timeout=20) as http:
        mine = {"Authorization": f"Bearer {session}"}
        wanted = {"name": "storm", "mode": "read", "password": PASSWORD}
        while not over.is_set():
            key = http.post("/api/me/api-keys", json=wanted, headers=mine).json()["data"]
            his = {"Authorization": f"Bearer {key['token']}"}
            codes.append(http.get("/verify", headers=his).status_code)
            gone = http.delete(f"/api/me/api-keys/{key['id']}", headers=mine)
            codes.append((gone.status_code, http.get("/verify", headers=his).status_code))
    return codes


def test_a_full_database_of_the_first_revision_is_upgraded_without_losing_a_row_under_load(
    new_database_url, tmp_path
):
    """The worker that serves meanwhile runs the code of today, which does with either revision."""
    with prepared(new_database_url, "0001") as app:
        with app.app_context():
            crowd(4000)
            db.session.commit()
        alice, bob = Person(app, "alice"), Person(app, "bob")
        kept = [alice.key(), bob.key()]
        dead = alice.key()
        alice.call("DELETE", f"/api/me/api-keys/{dead['id']}")
        alice.call("GET", "/api/me/api-keys", headers={"Authorization": "Bearer x"})
        before = everything(app)
        assert min(map(len, before.values())) >= 4000
        server, over = Server(new_database_url, tmp_path / "log"), Event()
        try:
            with ThreadPoolExecutor(2) as pool:
                lives = [pool.submit(life, server.url, who.token, over) for who in (alice, bob)]
                try:
                    flask(new_database_url, "db", "upgrade")
                finally:
                    over.set()
            codes = [code for each in lives for code in each.result()]
            assert len(codes) > 4 and set(codes) == {200, (200, 401)}
            after = everything(app)
            for table in TABLES:
                assert set(before[table]) <= set(after[table]), table
            verify = [
                httpx.get(f"{server.url}/verify", headers={"Authorization": f"Bearer {k['token']}"})
                for k in (*kept, dead)
            ]
            assert [answer.status_code for answer in verify] == [200, 200, 401]
        finally:
            server.stop()
        with app.app_context():
            check()
