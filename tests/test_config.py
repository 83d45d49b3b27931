"""A bad setting stops the start with one line that names it."""

import re
from pathlib import Path

import pytest

from app import create_app
from config import SETTINGS

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
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]*?)`? \|", text, re.M))
    assert told == {name: str(row[0]) for name, row in SETTINGS.items()}
