"""A bad setting stops the start with one line that names it; what the server is started with."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from app import create_app
from config import SETTINGS
from models.base import db

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
        ("LATCHKEY_VERIFY_DATABASE_URL", "postgresql://h:65536/d"),
        ("LATCHKEY_VERIFY_DATABASE_URL", "postgresql://h/d"),  # beside SQLite
        ("LATCHKEY_BIND", "127.0.0.1:65536"),
    ],
)
def test_a_bad_address_is_named(name, value):
    with pytest.raises(SystemExit, match=name):
        create_app({name: value})


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_taken(scheme):
    app = create_app({"DATABASE_URL": f"{scheme}://u@h/d", "LATCHKEY_TRUSTED_PROXIES": "1"})
    assert app.config["SQLALCHEMY_BINDS"][None]["url"] == "postgresql+psycopg://u@h/d"


def test_the_readme_names_every_setting_and_its_default():
    text = (Path(__file__).parent.parent / "README.md").read_text()
    rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \| `?([^`|]*?)`? \|", text, re.M)
    told = {}
    for names, defaults in rows:
        told |= zip(re.findall(r"\w+", names), defaults.split(", "), strict=True)
    assert told == {name: str(row[0]) for name, row in SETTINGS.items()}


@pytest.fixture
def setting(new_database_url):
    """synchronous_commit as the app's session finds it, by what the server or the URL says."""

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
@pytest.mark.parametrize("server, ours", [("off", "on"), ("remote_apply", "remote_apply")])
def test_acknowledged_is_durable_whatever_the_server_is_set_to(setting, server, ours):
    assert setting(server) == [ours] * 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("way", [None, "notes"])
def test_what_a_dead_host_had_locked_is_free_after_a_minute(migrated_app, way):
    with migrated_app.app_context(), db.engines[way].connect() as connection:
        show = db.text("SHOW idle_in_transaction_session_timeout")
        assert connection.scalar(show) == "1min"


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
