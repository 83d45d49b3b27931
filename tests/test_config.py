"""A bad setting stops the start with one line that names it; what a start leads to."""

from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from servers import disconnect, flask

from app import create_app
from config import SettingsSchema
from models.database import db

SETTINGS = SettingsSchema().fields
BAD = {
    "DATABASE_URL": "mysql://x",
    "LATCHKEY_BIND": "nowhere",
    "LATCHKEY_KEY_PREFIX": "Lk_",
    "LATCHKEY_DEFAULT_EXPIRY_DAYS": "400",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_bad_value_is_named(name):
    with pytest.raises(SystemExit, match=name):
        create_app({name: BAD.get(name, "many")})


@pytest.mark.parametrize(
    "name, value",
    [
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "postgresql://u@h:abc/d"),
        ("DATABASE_URL", "postgresql://[::1/d"),
        ("DATABASE_URL", "postgresql://h:65536/d"),
        ("LATCHKEY_BIND", "127.0.0.1:65536"),
    ],
)
def test_a_bad_address_is_named(name, value):
    with pytest.raises(SystemExit, match=name):
        create_app({name: value})


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_taken(migrated_app, database_url, scheme):
    app = create_app({"DATABASE_URL": scheme + database_url.removeprefix("postgresql")})
    assert app.test_client().get("/healthz").status_code == 200
    with app.app_context():
        assert db.session.scalar(db.text("SELECT count(*) FROM users")) == 3
    disconnect(app)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_only_a_migration_makes_the_file(new_database_url):
    """A wrong path is an error, not an empty database that accepts nobody."""
    app = create_app({"DATABASE_URL": new_database_url})
    assert app.test_client().get("/healthz").status_code == 503
    assert not Path(new_database_url.removeprefix("sqlite:///")).exists()
    flask(new_database_url, "db", "upgrade")
    assert app.test_client().get("/healthz").status_code == 200
    disconnect(app)


@pytest.fixture
def setting(new_database_url):
    """synchronous_commit in the app's session, by what the server or the URL says."""

    def found(server, query=""):
        name, query = urlsplit(new_database_url).path[1:], f"&{query}" if query else ""
        with psycopg.connect(new_database_url, autocommit=True) as other:
            other.execute(f"ALTER DATABASE {name} SET synchronous_commit = {server}")
        app = create_app({"DATABASE_URL": new_database_url + query})
        with app.app_context():
            show, told = db.text("SHOW synchronous_commit"), []
            for _ in range(2):
                told.append(db.session.scalar(show))
                db.session.rollback()
            db.engine.dispose()
        return told

    return found


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "server, ours", [("off", "on"), ("remote_apply", "remote_apply")]
)
def test_acknowledged_is_durable_whatever_the_server_is_set_to(setting, server, ours):
    assert setting(server) == [ours] * 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_a_dead_host_had_locked_is_free_after_a_minute(migrated_app):
    show = "SHOW idle_in_transaction_session_timeout"
    with migrated_app.app_context():
        assert db.session.scalar(db.text(show)) == "1min"
    with migrated_app.extensions["verifier"].connection() as connection:
        [row] = connection.execute(show).fetchall()
        assert list(row.values()) == ["1min"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_acknowledged_is_durable_whatever_the_url_asks_for(setting):
    assert setting("on", "options=-csynchronous_commit%3Doff") == ["on"] * 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_gunicorn_leaves_nothing_in_the_home_directory(serve, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    server = serve(HOME=str(home), XDG_RUNTIME_DIR="")
    server.stop()
    assert list(home.iterdir()) == [] and "Control socket" not in server.log.read_text()
