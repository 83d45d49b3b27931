"""What people pipe: line ends of every system, a BOM, controls; forms of Unicode.

Passwords and user names are compared after NFC (NIST SP 800-63B, 3.1.1.2).
"""

import os
import subprocess
import sys
import unicodedata

import bcrypt
import pytest
from click.testing import CliRunner
from conftest import log_in
from flask.cli import FlaskGroup
from servers import PASSWORD, ROOT, first_of

from models.database import db
from models.user import User

TYPED = "password-123"
BOM = b"\xef\xbb\xbf"


@pytest.fixture
def flask(app):
    """Run a command in this process; standard input is these bytes."""

    def run(*words, stdin=b""):
        group = FlaskGroup(create_app=lambda: app, name="flask")
        return CliRunner().invoke(group, words, input=stdin)

    return run


@pytest.fixture
def signs_in(app):
    """Whether somebody gets in with this name and password."""

    def ask(name, password):
        code = log_in(app.test_client(), name, password).status_code
        assert code in (200, 401)
        return code == 200

    return ask


ENDS = {
    "\\n": "{}\n",
    "\\r\\n": "{}\r\n",
    "none": "{}",
    "\\r": "{}\r",
    "\\r\\r\\n": "{}\r\r\n",
    "\\n\\n": "{}\n\n",
    "\\r\\n\\r\\n": "{}\r\n\r\n",
    "BOM": "\ufeff{}",
    "BOM \\n": "\ufeff{}\n",
    "BOM \\r\\n": "\ufeff{}\r\n",
    "BOM \\r": "\ufeff{}\r",
    "one more line": "{}\nanother line\n",
    "one more line \\r\\n": "{}\r\nanother line\r\n",
    "much more": "{}\n" + "x" * 100_000,
}
ends = pytest.mark.parametrize("piped", ENDS.values(), ids=ENDS)


@ends
def test_a_new_user_signs_in_with_what_was_meant(flask, signs_in, piped):
    stdin = piped.format(TYPED).encode()
    told = flask("users", "add", "dave", "--password-stdin", stdin=stdin)
    assert (told.exit_code, told.output) == (0, "dave: user added\n")
    assert signs_in("dave", TYPED)


@ends
def test_a_new_password_is_what_was_meant(flask, signs_in, piped):
    told = flask("users", "add", "dave", "--password-stdin", stdin=b"another-one\n")
    stdin = piped.format(TYPED).encode()
    told = flask("users", "password", "dave", "--password-stdin", stdin=stdin)
    assert (told.exit_code, told.output) == (0, "dave: password changed\n")
    assert signs_in("dave", TYPED)
    assert not signs_in("dave", "another-one")


AROUND = {"a space": " {} ", "tabs": "\t{}\t\n", "BOM, spaces": "\ufeff  {}  \r\n"}


@pytest.mark.parametrize("piped", (ENDS | AROUND).values(), ids=ENDS | AROUND)
def test_a_token_revokes_its_key_however_it_is_piped(flask, alice, verify, piped):
    token = alice.key()["token"]
    told = flask("keys", "revoke", "--token-stdin", stdin=piped.format(token).encode())
    assert (told.exit_code, told.output) == (0, "revoked\n")
    assert verify(token).status_code == 401


@pytest.mark.parametrize(
    "password",
    [
        " leading-and-trailing ",
        "space in it",
        "\u00fc\u00f6\u00e4\u00df-\u00e9\u00e8\u00e0",
        "\u65e5\u672c\u8a9e\u306e\u5408\u8a00\u8449\u3060",
        "\U0001f40e\U0001f50b\U0001f4ce-horse",
        "quote\"s-and-'s",
        "back\\slash\\n",
        "%0A-{}-$HOME",
        "non\u00a0breaking",
        "zero\u200bwidth",
        "x" * 72,
        "\u00e9" * 36,
    ],
    ids=ascii,
)
def test_nothing_else_of_a_password_is_changed(flask, signs_in, password):
    stdin = f"{password}\r\n".encode()
    told = flask("users", "add", "dave", "--password-stdin", stdin=stdin)
    assert told.exit_code == 0
    assert signs_in("dave", password)
    assert not signs_in("dave", f"{password[:-1]}!")


CONTROLS = {
    "NUL": b"pass\0word-123",
    "backspace": b"pass\x08word-123",
    "tab": b"pass\tword-123",
    "vertical tab": b"pass\x0bword-123",
    "form feed": b"pass\x0cword-123",
    "CR inside": b"pass\rword-123",
    "CR in front": b"\rpassword-123",
    "escape": b"pass\x1b[Aword-123",
    "end of transmission": b"password-123\x04",
    "delete": b"pass\x7fword-123",
    "C1": "pass\x80word-123".encode(),
    "next line": "password-123\x85".encode(),
    "CSI": "pass\x9bword-123".encode(),
    "UTF-16 LE without BOM": "password-123".encode("utf-16-le"),
    "UTF-16 BE without BOM": "password-123".encode("utf-16-be"),
    "UTF-32 LE without BOM": "password-123".encode("utf-32-le"),
}
NOT_UTF_8 = {
    "UTF-16": b"\xff\xfe" + "password-123\r\n".encode("utf-16-le"),
    "UTF-16 BE": b"\xfe\xff" + "password-123\n".encode("utf-16-be"),
    "UTF-32": "password-123".encode("utf-32"),
    "Latin-1": "pass\u00e9word-123".encode("latin-1"),
    "a continuation": b"pass\x80word-123",
    "cut short": "password-\u65e5".encode()[:-1],
    "overlong": b"pass\xc0\x80word-123",
    "a surrogate": b"pass\xed\xa0\x80word-123",
}
REFUSED = [(text, "a password has no control characters") for text in CONTROLS.values()]
REFUSED += [(text, "standard input is not UTF-8") for text in NOT_UTF_8.values()]


@pytest.mark.parametrize("text, why", REFUSED, ids=[*CONTROLS, *NOT_UTF_8])
def test_what_nobody_can_type_is_refused(flask, signs_in, sql, text, why):
    told = flask("users", "add", "dave", "--password-stdin", stdin=text + b"\r\n")
    assert told.exit_code != 0
    assert told.output.endswith(f"{why}\n")
    told = flask("users", "password", "alice", "--password-stdin", stdin=text)
    assert told.exit_code != 0
    assert told.output.endswith(f"{why}\n")
    assert sql("SELECT count(*) FROM users") == [(3,)]
    assert sql("SELECT count(*) FROM audit_events") == [(0,)]
    assert signs_in("alice", PASSWORD)


@pytest.mark.parametrize("name", ["NUL", "tab", "escape", "delete", "C1", "next line"])
def test_at_the_prompt_too(flask, sql, name):
    text = CONTROLS[name]
    told = flask("users", "add", "dave", stdin=text + b"\n" + text + b"\n")
    assert told.exit_code != 0
    assert sql("SELECT count(*) FROM users") == [(3,)]


@pytest.mark.parametrize(
    "stdin",
    [b"", b"\n", b"\r\n", BOM, BOM + b"\r\n", b"\nlong enough\n", b"1234567\r\n"],
)
def test_nothing_or_too_little_is_refused(flask, sql, stdin):
    told = flask("users", "add", "dave", "--password-stdin", stdin=stdin)
    assert told.exit_code == 2
    assert told.output.endswith("a password has at least 8 characters\n")
    assert sql("SELECT count(*) FROM users") == [(3,)]


NO_KEY = "no such key: name it by lk_ and its 12 characters, its UUID or its token"


@pytest.mark.parametrize(
    "stdin, why",
    [
        (b"", NO_KEY),
        (b"\n", NO_KEY),
        (b"lk_\0\n", NO_KEY),
        ("lk_\u65e5\n".encode(), NO_KEY),
        (b"lk_\xff\n", "standard input is not UTF-8"),
        (b"\xff\xfel\0k\0_\0\n\0", "standard input is not UTF-8"),
    ],
)
def test_what_is_no_token_is_told_in_one_line(flask, stdin, why):
    told = flask("keys", "revoke", "--token-stdin", stdin=stdin)
    assert (told.exit_code, told.output) == (1, f"Error: {why}\n")


@pytest.mark.parametrize(
    "words",
    [
        ("users", "suspend"),
        ("users", "restore"),
        ("users", "password", "--password-stdin"),
        ("keys", "revoke", "--user"),
        ("keys", "list", "--user"),
        ("audit", "--event"),
    ],
    ids=" ".join,
)
def test_an_argument_that_is_not_utf8_is_told_in_one_line(flask, words):
    """Python gives a program such a byte as half a surrogate pair (PEP 383)."""
    told = flask(*words, "caf\udce9", stdin=b"password-123\n")
    wanted = (1, "Error: an argument is not UTF-8\n")
    assert (told.exit_code, told.output) == wanted


# --- a process of its own -------------------------------------------------------------


@pytest.mark.live
@pytest.mark.parametrize("end", first_of(["\r\n", "\n", "", "\r"]), ids=ascii)
@pytest.mark.parametrize("locale", first_of(["C", "C.UTF-8", "POSIX"]))
def test_through_a_real_pipe_in_any_locale(
    app, database_url, signs_in, verify, alice, end, locale
):
    """Without UTF-8 as its locale, Python would decode the bytes in another way."""
    password, token = "p\u00e4ssw\u00f6rd-123", alice.key()["token"]
    environ = {**os.environ, "DATABASE_URL": database_url, "LC_ALL": locale}
    environ |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(*words, stdin):
        command = [sys.executable, "-m", "flask", "--app", "wsgi", *words]
        how = {"cwd": ROOT, "env": environ, "capture_output": True}
        return subprocess.run(command, input=(stdin + end).encode(), **how)

    told = run("users", "add", "dave", "--password-stdin", stdin=password)
    assert (told.returncode, told.stdout) == (0, b"dave: user added\n")
    told = run("keys", "revoke", "--token-stdin", stdin=f"\ufeff{token}")
    assert (told.returncode, told.stdout) == (0, b"revoked\n")
    assert signs_in("dave", password)
    assert verify(token).status_code == 401


@pytest.mark.live
@pytest.mark.parametrize("words", ["users add dave", "users password alice"])
def test_a_standard_input_with_nothing_in_it_is_told_in_one_line(
    app, database_url, words
):
    command = [sys.executable, "-m", "flask", "--app", "wsgi", *words.split()]
    told = subprocess.run(
        [*command, "--password-stdin"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].endswith("a password has at least 8 characters")
    assert "Traceback" not in told.stderr


# --- forms of Unicode -----------------------------------------------------------------

FORMS = {  # two spellings of one text: by NFC they are the same
    "e acute": ("\u00e9" * 8, "e\u0301" * 8),
    "in a word": ("caf\u00e9-cr\u00e8me", "cafe\u0301-cre\u0300me"),
    "half and half": (
        "\u00e9e\u0301\u00e9e\u0301-1234",
        "e\u0301\u00e9e\u0301\u00e9-1234",
    ),
    "umlauts": ("\u00fcber\u00e4rger", "u\u0308bera\u0308rger"),
    "Vietnamese": ("m\u1eadt kh\u1ea9u-1", "ma\u0323\u0302t kha\u0302\u0309u-1"),
    "marks in another order": (
        "\u1e69\u1e69-123456",
        "s\u0307\u0323s\u0323\u0307-123456",
    ),
    "Hangul": ("\ube44\ubc00\ubc88\ud638-1234", None),
    "Kana": ("\u30d1\u30b9\u30ef\u30fc\u30c9\u30ac\u30ae\u30b0", None),
    "Angstrom": ("\u00c5ngstr\u00f6m-1", "\u212bngstr\u00f6m-1"),
    "Ohm": ("\u03a9-resistor", "\u2126-resistor"),
    "Kelvin": ("Kelvin-273", "\u212aelvin-273"),
    "Devanagari": ("\u0915\u093c\u0916\u0917-12345", "\u0958\u0916\u0917-12345"),
    "Hebrew": (
        "\u05e9\u05bc\u05c1\u05e9\u05dc\u05d5\u05dd-12",
        "\ufb2c\u05e9\u05dc\u05d5\u05dd-12",
    ),
    "compatibility ideograph": ("\u8c48-password", "\uf900-password"),
    "72 bytes": ("\u00e9" * 36, "e\u0301" * 36),
}
FORMS = {
    name: (one, other or unicodedata.normalize("NFD", one))
    for name, (one, other) in FORMS.items()
}
forms = pytest.mark.parametrize("pair", FORMS.values(), ids=FORMS)


def test_the_pairs_are_two_spellings_of_one_text():
    for one, other in FORMS.values():
        assert one != other
        assert len({unicodedata.normalize("NFC", text) for text in (one, other)}) == 1


@forms
@pytest.mark.parametrize("turn", [1, -1], ids=["composed", "decomposed"])
def test_a_password_is_right_in_any_form(app, flask, signs_in, sql, pair, turn):
    """macOS types one and Windows the other, for the same keys."""
    stored, typed = pair[::turn]
    stdin = f"{stored}\r\n".encode()
    flask("users", "add", "dave", "--password-stdin", stdin=stdin)
    assert signs_in("dave", typed)
    assert signs_in("dave", stored)
    assert not signs_in("dave", f"{typed[:-1]}!")
    who = {"username": "dave", "password": typed}
    ours = {"Sec-Fetch-Site": "same-origin"}
    http = app.test_client()
    assert http.post("/api/session", json=who, headers=ours).status_code == 200
    token = log_in(http, "dave", stored).json["data"]["token"]
    wanted = {"name": "script", "mode": "read", "password": typed}
    bearer = {"Authorization": f"Bearer {token}"}
    http = app.test_client()
    made = http.post("/api/me/api-keys", json=wanted, headers=bearer)
    assert made.status_code == 201


@pytest.mark.parametrize(
    "stored, typed",
    [
        ("\ufb01le-password", "file-password"),
        ("\uff50assword-1", "password-1"),
        ("password\u2460", "password1"),
        ("stra\u00dfe-12", "strasse-12"),
        ("PASSWORD-1", "password-1"),
        ("pass\u00a0word", "pass word"),
        ("\u0391lphabet", "Alphabet"),
        ("password-\u00b2", "password-2"),
        ("pass\u200bword", "password"),
        ("password-\u00e9", "password-e"),
    ],
    ids=ascii,
)
def test_what_only_looks_alike_is_another_password(flask, signs_in, stored, typed):
    """NFKC, folding of case or of accents would make guessing easier."""
    stdin = f"{stored}\n".encode()
    flask("users", "add", "dave", "--password-stdin", stdin=stdin)
    assert not signs_in("dave", typed)
    assert signs_in("dave", stored)


@pytest.fixture
def stored_as_typed(app):
    """Alice has a hash of an older release: of these very bytes."""

    def store(password):
        salt = bcrypt.gensalt(4)
        with app.app_context():
            user = User.by_name("alice")
            user.password_hash = bcrypt.hashpw(password.encode(), salt).decode()
            db.session.commit()

    yield store
    store(PASSWORD)


OLD = [other for _, other in FORMS.values()]
OLD = [text for text in OLD if len(text.encode()) <= 72]
OLD += ["password-123\r", "pass\tword-123", "\ufeffpassword", "x", "\x1b[A\x1b[A"]
OLD += ["\u0958" * 24, "\ufb2c" * 24]  # 72 bytes as they were typed, more by NFC


@pytest.mark.parametrize("password", OLD, ids=ascii)
def test_an_old_hash_of_another_form_goes_on_working(
    app, signs_in, stored_as_typed, password
):
    stored_as_typed(password)
    assert signs_in("alice", password)
    assert not signs_in("alice", f"{password[:-1]}!")
    session = log_in(app.test_client(), "alice", password).json["data"]["token"]
    wanted = {"name": "script", "mode": "read", "password": password}
    bearer = {"Authorization": f"Bearer {session}"}
    made = app.test_client().post("/api/me/api-keys", json=wanted, headers=bearer)
    assert made.status_code == 201


@pytest.mark.parametrize(
    "name", ["kate", "KATE", "\u212aate", "\u212aATE", "Kate", "kaTE"], ids=ascii
)
def test_a_user_name_is_the_same_in_any_form_and_case(flask, signs_in, name):
    """The Kelvin sign is the letter K, by NFC."""
    flask("users", "add", "Kate", "--password-stdin", stdin=b"password-123\n")
    assert signs_in(name, TYPED)
    told = flask("users", "suspend", name)
    assert told.output == "kate: user suspended\n"
    assert not signs_in(name, TYPED)
    assert flask("users", "restore", name).exit_code == 0
    assert flask("keys", "list", "--user", name).exit_code == 0
    told = flask("users", "add", name, "--password-stdin", stdin=b"password-123\n")
    assert told.exit_code != 0


@pytest.mark.parametrize("name", ["jos\u00e9", "jose\u0301", "JOSE\u0301"], ids=ascii)
def test_a_name_that_another_program_has_added_too(app, signs_in, name):
    """The commands take ASCII only."""
    with app.app_context():
        user = User(username="jos\u00e9")
        user.set_password(TYPED)
        db.session.add(user)
        db.session.commit()
    assert signs_in(name, TYPED)


@pytest.mark.parametrize(
    "spellings",
    [
        [
            "jos\u00e9",
            "jose\u0301",
            "JOS\u00c9",
            "JOSE\u0301",
            "Jos\u00e9",
            "Jose\u0301",
        ],
        ["\u212aate", "kate", "Kate", "KATE"],
        ["\u212bngstrom", "\u00c5ngstrom", "\u00e5ngstrom", "A\u030angstrom"],
    ],
    ids=ascii,
)
def test_however_a_name_is_spelt_its_failures_count_together(app, spellings):
    http, codes = app.test_client(), []
    for n in range(12):
        name = spellings[n % len(spellings)]
        codes.append(log_in(http, name, "wrong", ip=f"192.0.2.{n}").status_code)
    assert codes == [401] * 10 + [429] * 2
