"""The migrations make exactly the tables of the models, and lose nothing on the way."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import pytest
import sqlalchemy as sa
from conftest import ago, crowd
from flask_migrate import check, downgrade, upgrade
from servers import PASSWORD, Server, flask, prepared

import tokens
from models.database import db, new_id
from models.user import matches

TABLES = ("users", "sessions", "api_keys", "audit_events")


def test_flask_db_check_finds_nothing(app):
    with app.app_context():
        check()


# The statements of version 0.1, as its workers sent them.
CREATE = """
    INSERT INTO api_keys
        (id, user_id, name, key_public, digest, mode, created_at, expires_at)
    VALUES (:id, :user_id, 'script', :public, :digest, 'read', :now, :later)
"""
AUDIT = """
    INSERT INTO audit_events (created_at, event, reason, user_id, api_key_id, key_name,
        key_mode, ip, method, path, name_digest)
    VALUES (:now, :event, NULL, :user_id, :id, 'script', 'read', '192.0.2.1', 'POST',
        '/api/me/api-keys', NULL)
"""
READ = """
    SELECT k.id, k.key_public, k.digest, k.name, k.mode, k.user_id, u.username,
        CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
             WHEN u.suspended_at IS NOT NULL THEN 'user_suspended'
             WHEN k.expires_at <= :now THEN 'expired' END,
        k.last_used_at BETWEEN :past AND :now, k.last_refused_at BETWEEN :past AND :now,
        k.last_mismatch_at BETWEEN :past AND :now
    FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.key_public = :public
"""
NOTE_USE = (
    "UPDATE api_keys SET last_used_at = :now, last_used_ip = '::1' WHERE id = :id"
)
REVOKE = "UPDATE api_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL"
FAILED = """
    SELECT created_at FROM audit_events
    WHERE event = 'login_failed' AND ip = '192.0.2.1' AND created_at > :past
    ORDER BY created_at DESC LIMIT 1 OFFSET 10
"""


class OldWorker:
    """Stands in for a worker of 0.1: its statements, on connections of their own."""

    def __init__(self, database_url, user_id):
        sqlite = database_url.startswith("sqlite")
        url = database_url.replace("postgresql:", "postgresql+psycopg:")
        wait = {"timeout": 5} if sqlite else {"options": "-c lock_timeout=5s"}
        self.engine = sa.create_engine(url, connect_args=wait)
        self.user_id = user_id

    def run(self, *statements, key, **values):
        """Run the statements in one transaction; the rows of the last of them."""
        values |= {"now": ago(), "past": ago(minutes=1), "later": ago(days=-90)}
        values |= {"user_id": self.user_id, **key}
        with self.engine.begin() as connection:
            for statement in statements:
                result = connection.execute(sa.text(statement), values)
            return result.all() if result.returns_rows else []

    def create(self):
        token = tokens.new_token("lk")
        names = {"public": token.public, "digest": token.digest, "text": token.text}
        key = {"id": new_id(), **names}
        self.run(CREATE, AUDIT, key=key, event="created")
        return key

    def refusal(self, key):
        """Why this key is refused; None if it is good."""
        [row] = self.run(READ, key=key)
        return row[7]

    def revoke(self, key):
        self.run(REVOKE, AUDIT, key=key, event="revoked")

    def live(self, over):
        """Make a key, use it, revoke it, again and again until it is over."""
        lives = []
        while not over.is_set():
            key = self.create()
            seen = [self.refusal(key)]
            self.run(NOTE_USE, key=key)
            self.run(AUDIT, key=key, event="login_failed")
            self.run(FAILED, key=key)
            self.revoke(key)
            lives.append((key, [*seen, self.refusal(key)]))
        return lives


@pytest.fixture
def old_app(new_database_url):
    """An app over a database of the first revision that is full."""
    with prepared(new_database_url, "0001") as app:
        with app.app_context():
            crowd(4000)
            db.session.commit()
        yield app


@pytest.fixture
def old_workers(old_app, new_database_url):
    """Alice's and Bob's."""
    with old_app.app_context():
        ids = sa.text("SELECT id FROM users WHERE username IN ('alice', 'bob')")
        users = db.session.scalars(ids).all()
    workers = [OldWorker(new_database_url, user_id) for user_id in users]
    yield workers
    for worker in workers:
        worker.engine.dispose()


def columns_of(app):
    with app.app_context():
        inspected = sa.inspect(db.engine)
        return {
            table: [column["name"] for column in inspected.get_columns(table)]
            for table in TABLES
        }


def everything(app, columns):
    """All rows of all tables, as far as these columns tell of them."""
    with app.app_context():
        return {
            table: [
                repr(row)
                for row in db.session.execute(
                    sa.text(f"SELECT {', '.join(columns[table])} FROM {table}")
                )
            ]
            for table in TABLES
        }


def test_a_full_database_of_0_1_is_upgraded_under_load_without_losing_a_row(
    new_database_url, old_app, old_workers, tmp_path
):
    """Workers of version 0.1 go on meanwhile; today's code serves what they left."""
    kept = [worker.create() for worker in old_workers]
    revoked = old_workers[0].create()
    old_workers[0].revoke(revoked)
    columns = columns_of(old_app)
    before = everything(old_app, columns)
    assert min(map(len, before.values())) >= 4000
    over = Event()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(worker.live, over) for worker in old_workers]
        try:
            flask(new_database_url, "db", "upgrade")
        finally:
            over.set()
    lives = [life for each in running for life in each.result()]
    assert len(lives) > 4
    assert [seen for _, seen in lives] == [[None, "revoked"]] * len(lives)
    after = everything(old_app, columns)
    for table in TABLES:
        assert set(before[table]) <= set(after[table]), table
    with old_app.app_context():
        check()
    serve(new_database_url, tmp_path / "log", kept, [revoked, lives[0][0]])


def serve(database_url, log, good, bad):
    """Today's code accepts the good keys and revokes them; it refuses the bad ones."""
    server = Server(database_url, log)
    try:
        with httpx.Client(base_url=server.url, timeout=20) as http:

            def verdict(key):
                headers = {"Authorization": f"Bearer {key['text']}"}
                return http.get("/verify", headers=headers).status_code

            assert [verdict(key) for key in good] == [200] * len(good)
            assert [verdict(key) for key in bad] == [401] * len(bad)
            for name in ("alice", "bob"):
                who = {"username": name, "password": PASSWORD}
                session = http.post("/api/auth/login", json=who).json()["data"]
                mine = {"Authorization": f"Bearer {session['token']}"}
                answer = http.delete("/api/me/api-keys", headers=mine)
                assert answer.json()["data"] == {"revoked": 1}
            assert [verdict(key) for key in good] == [401] * len(good)
    finally:
        server.stop()


def test_a_user_without_a_password_outlives_the_way_back(new_database_url):
    """In version 0.1 nobody's password is right for such a user."""
    with prepared(new_database_url) as app, app.app_context():
        rows = [
            "INSERT INTO users (id, username, created_at) VALUES ('u', 'dora', :now)",
            "INSERT INTO sessions VALUES (:digest, 'u', :now, :now)",
            "INSERT INTO identities VALUES ('https://id.example', '1', 'u')",
            "INSERT INTO provider_sessions VALUES (:digest, '1', NULL, NULL)",
        ]
        for row in rows:
            db.session.execute(sa.text(row), {"now": ago(), "digest": b"d"})
        db.session.commit()
        downgrade(revision="0003")
        hashes = sa.text("SELECT password_hash FROM users WHERE username = 'dora'")
        [stored] = db.session.scalars(hashes).all()
        assert not matches(PASSWORD, stored)
        db.session.rollback()
        upgrade()
        check()
        left = sa.text("SELECT user_id FROM sessions WHERE user_id = 'u'")
        assert db.session.scalars(left).all() == ["u"]
        db.session.rollback()


def test_what_belongs_to_a_session_or_a_user_goes_with_it(new_database_url):
    with prepared(new_database_url) as app, app.app_context():
        rows = [
            "INSERT INTO users (id, username, created_at) VALUES ('u', 'dora', :now)",
            "INSERT INTO sessions VALUES (:digest, 'u', :now, :now)",
            "INSERT INTO identities VALUES ('https://id.example', '1', 'u')",
            "INSERT INTO provider_sessions VALUES (:digest, '1', NULL, NULL)",
            "DELETE FROM sessions WHERE user_id = 'u'",
            "DELETE FROM users WHERE id = 'u'",
        ]
        for row in rows:
            db.session.execute(sa.text(row), {"now": ago(), "digest": b"d"})
        for table in ("provider_sessions", "identities"):
            rows = db.session.execute(sa.text(f"SELECT * FROM {table}")).all()
            assert rows == []
        db.session.rollback()
