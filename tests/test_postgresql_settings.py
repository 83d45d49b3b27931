"""PostgreSQL's settings and encodings: what an operator set, and what it comes to.

Each is set for the database, for the role, or in the options of DATABASE_URL.
"""

import re
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread, Timer
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from click.testing import CliRunner
from conftest import PASSWORD, Person, log_in
from flask.cli import FlaskGroup
from servers import Postgres, disconnect, prepared

from app import create_app
from models.database import db, utcnow

KEYS = "/api/me/api-keys"
OURS = {"Sec-Fetch-Site": "same-origin"}
BUSY = {"code": 503, "message": "service unavailable", "data": {}}
pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def server(database_url):
    """A connection of the operator."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@contextmanager
def new_database(server, url, options=""):
    """The URL of a new database."""
    name = f"new_{uuid.uuid4().hex}"
    server.execute(f"CREATE DATABASE {name} {options}")
    try:
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def name_of(url):
    return urlsplit(url).path[1:]


# --- settings -------------------------------------------------------------------------

REPORTED = [  # name, what the operator sets, what Latchkey then has
    ("DateStyle", "German", "ISO, DMY"),
    ("DateStyle", "SQL, DMY", "ISO, DMY"),
    ("DateStyle", "Postgres, MDY", "ISO, MDY"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("client_encoding", "SQL_ASCII", "UTF8"),
    ("client_encoding", "WIN1252", "UTF8"),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_isolation", "repeatable read", "read committed"),
    ("TimeZone", "Asia/Kolkata", "UTC"),
    ("TimeZone", "America/St_Johns", "UTC"),
    ("TimeZone", "-14", "UTC"),
    ("statement_timeout", "150ms", "0"),
    ("standard_conforming_strings", "off", "on"),
]
ALIKE = [  # set on connect too, or without effect
    ("lock_timeout", "1ms", None),
    ("idle_in_transaction_session_timeout", "2s", "1min"),
    ("default_transaction_deferrable", "on", None),
    ("IntervalStyle", "sql_standard", None),
    ("bytea_output", "escape", None),
    ("extra_float_digits", "-15", None),
    ("transform_null_equals", "on", None),
    ("escape_string_warning", "off", None),
    ("backslash_quote", "off", None),
    ("array_nulls", "off", None),
    ("row_security", "off", None),
    ("quote_all_identifiers", "on", None),
    ("client_min_messages", "debug1", None),
    ("check_function_bodies", "off", None),
    ("enable_indexscan", "off", None),
    ("application_name", "one of ours", None),
]
SETTINGS = REPORTED + ALIKE
CASES = [("database", *setting) for setting in SETTINGS]
CASES += [(where, *setting) for where in ("role", "url") for setting in REPORTED]


@contextmanager
def set_for(where, server, url, name, value):
    """Set it there; the URL to use. (A new role: the tests share theirs.)"""
    if where == "url":
        escaped = value.replace(" ", r"\ ")
        yield f"{url}&options={quote(f'-c {name}={escaped}')}"
        return
    database, role = name_of(url), f"role_{uuid.uuid4().hex}"
    parts = urlsplit(url)
    server.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{parts.password}'")
    whose = {
        "database": f"DATABASE {database}",
        "role": f"ROLE {role}",
        "role in the database": f"ROLE {role} IN DATABASE {database}",
    }[where]
    try:
        server.execute(f"ALTER {whose} SET {name} TO {quoted(name, value)}")
        _, _, address = parts.netloc.rpartition("@")
        user = role + (f":{parts.password}" if parts.password else "")
        yield parts._replace(netloc=f"{user}@{address}").geturl()
    finally:
        server.execute(f"ALTER {whose} RESET {name}")
        with psycopg.connect(url, autocommit=True) as there:
            there.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        server.execute(f"DROP ROLE {role}")


def quoted(name, value):
    return value if name in ("DateStyle", "search_path") else f"'{value}'"


def everything_works(app):
    """From the log-in to the revoked key, with times that are right."""
    alice = Person(app, "alice")
    key = alice.key(name="\u00fcbung")
    now = utcnow()
    made, ends = (
        datetime.fromisoformat(key[at]) for at in ("created_at", "expires_at")
    )
    assert abs(now - made) < timedelta(seconds=30)
    assert abs(ends - made - timedelta(days=90)) < timedelta(seconds=1)
    bearer = {"Authorization": f"Bearer {key['token']}"}
    http = app.test_client()
    for _ in range(2):
        assert http.get("/verify", headers=bearer).status_code == 200
    [shown] = alice.call("GET", KEYS).json["data"]["api_keys"]
    assert (shown["name"], shown["status"]) == ("\u00fcbung", "active")
    used = datetime.fromisoformat(shown["last_used_at"])
    assert abs(now - used) < timedelta(seconds=30)
    assert log_in(http, "alice", "wrong").status_code == 401
    revoked = alice.call("DELETE", f"{KEYS}/{key['id']}")
    assert (revoked.status_code, revoked.json["data"]) == (200, {})
    assert http.get("/verify", headers=bearer).status_code == 401
    trail = alice.call("GET", f"{KEYS}/audit").json["data"]["audit"]
    events = ["auth_failed", "revoked", "login_failed", "created"]
    assert [entry["event"] for entry in trail] == events
    assert {entry["key_name"] for entry in trail} == {"\u00fcbung", None}
    for entry in trail:
        at = datetime.fromisoformat(entry["created_at"])
        assert abs(now - at) < timedelta(seconds=30)
    assert alice.call("POST", "/api/auth/logout").status_code == 200
    assert alice.call("GET", "/api/me").status_code == 401
    assert http.get("/healthz").status_code == 200


def commands_work(app):
    group = FlaskGroup(create_app=lambda: app, name="flask")
    for words, stdin, said in [
        ("users add dave --password-stdin", "password-123\n", "dave: user added"),
        ("users list", "", rf"alice +- +{datetime.now(UTC):%Y-%m-%dT}"),
        ("keys list", "", "alice +read +revoked"),
        ("users suspend bob", "", "bob: user suspended"),
        ("prune", "", "pruned 0 sessions"),
    ]:
        told = CliRunner().invoke(group, words.split(), input=stdin)
        assert told.exit_code == 0, told.output
        assert re.search(said, told.output), told.output


def shown(app, name):
    """The setting in a session's connection, and in a verification's."""
    show = f"SHOW {name}"
    with app.app_context():
        ours = [db.session.scalar(db.text(show))]
        db.session.rollback()
        ours.append(db.session.scalar(db.text(show)))  # of the next transaction too
        db.session.rollback()
    with app.extensions["verifier"].cursor() as cursor:
        [row] = cursor.execute(show).fetchall()
    return [*ours, *row]


@pytest.mark.parametrize(
    "where, name, value, ours", CASES, ids=lambda text: str(text).replace(" ", "_")
)
def test_what_is_set_elsewhere_is_without_effect(
    server, new_database_url, where, name, value, ours
):
    with (
        set_for(where, server, new_database_url, name, value) as url,
        prepared(url) as app,
    ):
        everything_works(app)
        if ours:
            assert shown(app, name) == [ours] * 3


def test_all_of_it_at_once(server, new_database_url):
    database = f"DATABASE {name_of(new_database_url)}"
    for name, value, _ in SETTINGS:
        server.execute(f"ALTER {database} SET {name} TO {quoted(name, value)}")
    with prepared(new_database_url) as app:
        everything_works(app)
        commands_work(app)


def test_what_libpq_reads_from_the_environment_is_without_effect_too(
    new_database_url, monkeypatch
):
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    monkeypatch.setenv("PGTZ", "Asia/Kolkata")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    options = "-cdefault_transaction_isolation=serializable -cstatement_timeout=150ms"
    monkeypatch.setenv("PGOPTIONS", options)
    with prepared(new_database_url) as app:
        everything_works(app)
        commands_work(app)
        for name, _, ours in SETTINGS[:-1]:
            if ours and name != "DateStyle":
                assert shown(app, name) == [ours] * 3


def test_a_statement_may_take_longer_than_the_operator_allows_others(
    server, new_database_url
):
    with (
        set_for("database", server, new_database_url, "statement_timeout", "150ms"),
        prepared(new_database_url) as app,
        app.app_context(),
    ):
        db.session.execute(db.text("SELECT pg_sleep(0.5)"))


def test_a_lock_is_waited_for_however_short_the_operator_s_patience(
    server, new_database_url
):
    with (
        set_for("database", server, new_database_url, "lock_timeout", "1ms"),
        prepared(new_database_url) as app,
        psycopg.connect(new_database_url) as other,
    ):
        other.execute("SELECT id FROM users FOR UPDATE")
        Timer(0.7, other.rollback).start()
        assert log_in(app.test_client(), "alice").status_code == 200


def test_a_time_that_another_zone_wrote_is_the_same_moment(server, new_database_url):
    """A session of ours that the operator's setting reached would move it by hours."""
    with prepared(new_database_url) as app:
        key = Person(app, "alice").key()
        disconnect(app)
        for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"):
            zoned = ("database", server, new_database_url, "TimeZone", zone)
            with set_for(*zoned):
                alice = Person(app, "alice")
                [same] = alice.call("GET", KEYS).json["data"]["api_keys"]
                assert same["created_at"] == key["created_at"]
                assert same["expires_at"] == key["expires_at"]
                disconnect(app)


# --- search_path ----------------------------------------------------------------------


@pytest.mark.parametrize("where", ["database", "role", "url", "role in the database"])
@pytest.mark.parametrize("path", ["latchkey", "latchkey,public", '"Key 1",public'])
def test_a_search_path_is_the_operator_s_choice(server, new_database_url, where, path):
    schema = path.partition(",")[0]
    with psycopg.connect(new_database_url, autocommit=True) as other:
        other.execute(f"CREATE SCHEMA {schema}")
    with set_for(where, server, new_database_url, "search_path", path) as url:
        with prepared(url) as app:
            everything_works(app)
            commands_work(app)
        in_schema = "SELECT schemaname FROM pg_tables WHERE tablename = 'api_keys'"
        with psycopg.connect(new_database_url) as other:
            found = other.execute(in_schema).fetchall()
    assert found == [(schema.strip('"'),)]


@pytest.mark.parametrize(
    "options",
    [
        "-csearch_path%3Dlatchkey",
        "-c%20search_path%3Dlatchkey",
        "--search_path%3Dlatchkey",
        "-c%20DateStyle%3DGerman%20-c%20search_path%3Dlatchkey",
        "-c%20search_path%3Dlatchkey%20-c%20TimeZone%3DAsia%2FTokyo",
        "-c%20search_path%3Dlatchkey%2Cpublic&application_name=a%20b%2Bc",
        "-csearch_path%3Dlatchkey&client_encoding=LATIN1",
        "-csearch_path%3Dlatchkey%20-cclient_encoding%3DSQL_ASCII",
    ],
)
def test_the_options_of_the_url_are_as_libpq_reads_them(new_database_url, options):
    with psycopg.connect(new_database_url, autocommit=True) as other:
        other.execute("CREATE SCHEMA latchkey")
    with prepared(f"{new_database_url}&options={options}") as app:
        everything_works(app)
        assert shown(app, "search_path")[0].partition(",")[0] == "latchkey"
        if "application_name" in options:
            assert shown(app, "application_name") == ["a b+c"] * 3


# --- what may not come again ----------------------------------------------------------

RAISE = """CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'of the test' USING ERRCODE = '{code}'; END $$"""
TABLES = ("users", "sessions", "api_keys", "audit_events")


@pytest.fixture
def failing(app, sql):
    """Let every write to a table fail with this SQLSTATE."""
    made = []

    def fail(code, *tables):
        sql(RAISE.format(code=code))
        for table in tables:
            when = f"BEFORE INSERT OR UPDATE OR DELETE ON {table}"
            sql(f"CREATE TRIGGER fail {when} FOR EACH ROW EXECUTE FUNCTION fail()")
        made.append(code)

    yield fail
    if made:
        sql("DROP FUNCTION fail CASCADE")


TEMPORARY = ["40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "25006"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("code", TEMPORARY)
def test_what_may_not_come_again_is_503_and_changes_nothing(
    app, alice, verify, failing, sql, code, table
):
    """Serialization failures and deadlocks among them."""
    key = alice.key()
    before = [sql(f"SELECT * FROM {name} ORDER BY 1") for name in TABLES]
    failing(code, table)
    calls = {
        "revoke": lambda: alice.call("DELETE", f"{KEYS}/{key['id']}"),
        "revoke all": lambda: alice.call("DELETE", KEYS),
        "log in": lambda: log_in(app.test_client(), "alice"),
        "sign in": lambda: app.test_client().post(
            "/api/session",
            json={"username": "alice", "password": PASSWORD},
            headers=OURS,
        ),
        "create": alice.create,
        "log out": lambda: alice.call("POST", "/api/auth/logout"),
        "revoke by token": lambda: app.test_client().post(
            "/oauth/revoke", data={"token": key["token"]}
        ),
    }
    written = {
        "users": {"log in", "sign in", "create"},
        "sessions": {"log in", "sign in", "log out"},
        "api_keys": {"revoke", "revoke all", "create", "revoke by token"},
        "audit_events": {*calls} - {"log out"},
    }
    for what in written[table]:
        answer = calls[what]()
        assert (answer.status_code, answer.json) == (503, BUSY), what
        assert answer.headers["Retry-After"] == "1"
    if table != "audit_events":  # of an attempt it is told before it is made
        sql("DELETE FROM audit_events WHERE event = 'login_failed'")
    assert [sql(f"SELECT * FROM {name} ORDER BY 1") for name in TABLES] == before
    assert verify(key["token"]).status_code == 200
    assert alice.call("GET", "/api/me").status_code == 200


def test_a_real_deadlock_is_503_and_nothing_is_half_done(alice, verify, database_url):
    """The call locks the key, another program the trail; then each wants both."""
    key = alice.key()
    answers = []

    def revoke():
        answers.append(alice.call("DELETE", f"{KEYS}/{key['id']}"))

    with psycopg.connect(database_url) as other:
        other.execute("SET deadlock_timeout = '1min'")  # the call is the one to fail
        other.execute("LOCK TABLE audit_events IN SHARE MODE")
        revoking = Thread(target=revoke)
        revoking.start()
        while not waits(database_url):
            assert revoking.is_alive()
        lock = "SELECT id FROM api_keys WHERE id = %s FOR UPDATE"
        other.execute(lock, [key["id"]])  # it gets it when the call has failed
        revoking.join()
    [answer] = answers
    assert (answer.status_code, answer.json) == (503, BUSY)
    assert answer.headers["Retry-After"] == "1"
    assert verify(key["token"]).status_code == 200
    assert alice.call("DELETE", f"{KEYS}/{key['id']}").status_code == 200
    assert verify(key["token"]).status_code == 401


def waits(database_url):
    """Whether a client waits for a lock."""
    with psycopg.connect(database_url) as other:
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return other.execute(query).fetchone()


def test_a_lost_race_under_serializable_is_503(server, new_database_url):
    """Where somebody sets the isolation of our own connection, by a trigger say."""
    with prepared(new_database_url) as app:
        alice = Person(app, "alice")
        key = alice.key()
        raced = []

        def race(connection, cursor, statement, *more):
            """After the call has read, and before it writes, somebody else writes."""
            if statement.startswith("UPDATE api_keys") and not raced:
                raced.append(statement)
                with psycopg.connect(new_database_url) as other:
                    other.execute("UPDATE api_keys SET name = 'renamed'")

        def begin(connection):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")

        with app.app_context():
            db.event.listen(db.engine, "begin", begin)
            db.event.listen(db.engine, "before_cursor_execute", race)
        answer = alice.call("DELETE", f"{KEYS}/{key['id']}")
        assert (answer.status_code, answer.json) == (503, BUSY)
        assert answer.headers["Retry-After"] == "1"
        assert len(raced) == 1


# --- encodings ------------------------------------------------------------------------

HOLDS = {  # encoding: a name that it holds
    "UTF8": "\u2603 \U0001f986 \u65e5\u672c",
    "SQL_ASCII": "\u2603 \U0001f986 \u65e5\u672c",
    "LATIN1": "\u00fc\u00df\u00e9",
    "LATIN2": "\u0159\u017e\u00e1",
    "LATIN9": "\u20ac\u0153",
    "WIN1252": "\u20ac\u2026",
    "WIN1251": "\u0436\u0443\u043a",
    "KOI8R": "\u0436\u0443\u043a",
    "ISO_8859_7": "\u03b1\u03b2\u03b3",
    "EUC_JP": "\u65e5\u672c\u8a9e",
    "EUC_KR": "\ud55c\uad6d\uc5b4",
    "EUC_CN": "\u4e2d\u6587",
}
STRANGE = {
    "snowman": "\u2603",
    "duck": "\U0001f986",
    "Thai": "\u0e44\u0e17\u0e22",
    "Arabic": "\u0639\u0631\u0628\u064a",
    "Latin Extended": "\u0180\u01c0\u0233",
    "IPA": "\u0259\u0283",
    "a combining mark": "e\u0301\u0316",
    "Cherokee": "\u13a0\u13a1",
    "private": "\ue000",
    "no character": "\uffff",
    "a hundred": "\u2603" * 100,
    "a letter in a word": "scr\u0268pt",
}


@pytest.fixture(scope="module")
def in_encoding(database_url):
    """An app over a database of this encoding, made once for each."""
    apps = {}
    options = "TEMPLATE template0 ENCODING '{}' LC_COLLATE 'C' LC_CTYPE 'C'"
    with psycopg.connect(database_url, autocommit=True) as server:
        opened = []

        def app(encoding):
            if encoding not in apps:
                made = new_database(server, database_url, options.format(encoding))
                url = made.__enter__()
                ready = prepared(url)
                apps[encoding] = ready.__enter__()
                opened.extend([made, ready])
            return apps[encoding]

        yield app
        for each in reversed(opened):
            each.__exit__(None, None, None)


@pytest.mark.parametrize("encoding, text", HOLDS.items())
def test_in_every_encoding_everything_works(in_encoding, encoding, text):
    app = in_encoding(encoding)
    assert shown(app, "client_encoding") == ["UTF8"] * 3
    alice = Person(app, "alice")
    made = alice.create(name=text)
    assert (made.status_code, made.json["data"]["name"]) == (201, text)
    key = made.json["data"]
    listed = alice.call("GET", KEYS).json["data"]["api_keys"]
    assert text in [each["name"] for each in listed]
    assert alice.call("DELETE", f"{KEYS}/{key['id']}").status_code == 200
    trail = alice.call("GET", f"{KEYS}/audit").json["data"]["audit"]
    assert trail[0]["key_name"] == text
    bearer = {"Authorization": f"Bearer {key['token']}"}
    assert app.test_client().get("/verify", headers=bearer).status_code == 401
    for password in ("\u2603" * 8, "\U0001f986" * 8, "pa\u00dfw\u00f6rter"):
        change_password(app, "bob", password)
        assert log_in(app.test_client(), "bob", password).status_code == 200
    change_password(app, "bob", PASSWORD)


def change_password(app, name, password):
    group = FlaskGroup(create_app=lambda: app, name="flask")
    words = ["users", "password", name, "--password-stdin"]
    assert CliRunner().invoke(group, words, input=password.encode()).exit_code == 0


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("encoding", HOLDS)
def test_what_an_encoding_cannot_hold_is_400_in_every_field(
    in_encoding, encoding, text
):
    app = in_encoding(encoding)
    alice, http = Person(app, "alice"), app.test_client()
    path = quote(text)
    header = text.encode().decode("latin-1")
    bearer = {"Authorization": f"Bearer lk_{header}"}
    cookie = {"Cookie": f"latchkey=lks_{path}"}
    key = alice.key()
    who = {"client_id": key["key_public"], "client_secret": key["token"]}
    ask_audit = f"{KEYS}/audit?api_key_id={path}"
    stored = alice.create(name=text)  # where the encoding holds it
    answers = {
        (201, 400): stored,
        (401, 400): log_in(http, text[:64], "password-123"),
        (401,): log_in(http, "alice", text[:18]),
        (400,): alice.create(password=text[:18]),
        (401, 400, 0): http.post(
            "/api/session",
            json={"username": text[:64], "password": text[:18]},
            headers=OURS,
        ),
        (400, 1): alice.create(mode=text),
        (400, 2): alice.create(expires_in_days=text),
        (400, 3): alice.create(**{text: text}),
        (404,): alice.call("DELETE", f"{KEYS}/{path}"),
        (404, 1): alice.call("DELETE", f"{KEYS}/{key['id'][:-1]}{path}"),
        (200, 400): alice.call("GET", ask_audit),
        (400, 4): alice.call("GET", f"{KEYS}/audit?event={path}"),
        (400, 5): alice.call("GET", f"{KEYS}?page={path}"),
        (401, 1): http.get(f"/verify/{path}?scope={path}", headers=bearer),
        (401, 2): http.get("/api/me", headers=bearer),
        (401, 3): http.get("/api/me", headers=cookie),
        (401, 4): http.post(
            "/oauth/introspect", data={"token": text, "client_id": text}
        ),
        (401, 5): http.post(
            "/oauth/introspect", auth=(text, text), data={"token": "x"}
        ),
        (200, 1): http.post("/oauth/introspect", data={"token": f"lk_{text}", **who}),
        (200, 2): http.post("/oauth/revoke", data={"token": f"lk_{text}"}),
        (200, 3): http.post("/oauth/revoke", data={"token": key["token"], text: text}),
        (404, 2): http.get(f"/docs/{path}"),
    }
    for statuses, answer in answers.items():
        told = answer.status_code, answer.request.path, answer.text
        assert answer.status_code in statuses and answer.status_code > 5, told
    for answer in answers.values():
        if answer.status_code == 400:
            assert answer.json["data"]["type"] == "validation_error"
            assert answer.json["data"]["errors"]
    if stored.status_code == 201:
        assert stored.json["data"]["name"] == text
    alice.call("DELETE", KEYS)
    with app.app_context():
        db.session.execute(db.text("DELETE FROM audit_events"))
        db.session.commit()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "UTF8"])
@pytest.mark.parametrize("text", ["\u2603", "\u00e9", "\U0001f986", "x\u65e5"])
@pytest.mark.parametrize("length", [20, 34, 50, 100])
def test_a_name_as_long_as_allowed_is_stored_or_refused(
    in_encoding, encoding, text, length
):
    """SQL_ASCII counts a character of three bytes as three."""
    app = in_encoding(encoding)
    alice = Person(app, "alice")
    name = (text * length)[:length]
    made = alice.create(name=name)
    assert made.status_code in (201, 400)
    assert encoding == "SQL_ASCII" or made.status_code == 201
    if made.status_code == 201:
        assert made.json["data"]["name"] == name
        path = f"{KEYS}/{made.json['data']['id']}"
        assert alice.call("DELETE", path).status_code == 200


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP", "WIN1251"])
@pytest.mark.parametrize(
    "words", ["users suspend", "users restore", "keys revoke", "keys list --user"]
)
def test_the_commands_tell_of_it_in_one_line(in_encoding, encoding, words):
    group = FlaskGroup(create_app=lambda: in_encoding(encoding), name="flask")
    told = CliRunner().invoke(group, [*words.split(), "\u2603\U0001f986"])
    assert told.exit_code in (1, 2)
    assert not told.exception or isinstance(told.exception, SystemExit)
    assert told.output.splitlines()[-1].startswith("Error: ")


# --- read-only ------------------------------------------------------------------------


def told_of(app):
    answer = app.test_client().get("/healthz")
    return answer.status_code, answer.json["message"]


@pytest.mark.parametrize("where", ["database", "role", "url", "role in the database"])
def test_a_database_that_may_only_be_read_is_unhealthy(server, new_database_url, where):
    name = "default_transaction_read_only"
    with prepared(new_database_url) as app:
        alice = Person(app, "alice")
        key = alice.key()
        assert told_of(app) == (200, "ok")
    with set_for(where, server, new_database_url, name, "on") as url:
        app = create_app({"DATABASE_URL": url, "LATCHKEY_BCRYPT_ROUNDS": "4"})
        check_read_only(app, alice, key)
        disconnect(app)
    app = create_app({"DATABASE_URL": new_database_url})
    assert told_of(app) == (200, "ok")
    disconnect(app)


def check_read_only(app, alice, key):
    """Keys verify, nothing can be revoked, and /healthz says so."""
    http, session = app.test_client(), {"Authorization": f"Bearer {alice.token}"}
    bearer = {"Authorization": f"Bearer {key['token']}"}
    for _ in range(2):
        assert told_of(app) == (503, "service unavailable")
        assert http.get("/verify", headers=bearer).status_code == 200
    who = {"username": "alice", "password": PASSWORD}
    for answer in (
        http.delete(f"{KEYS}/{key['id']}", headers=session),
        http.delete(KEYS, headers=session),
        http.post("/api/auth/login", json=who),
        http.post("/oauth/revoke", data={"token": key["token"]}),
        http.post("/api/auth/logout", headers=session),
    ):
        assert (answer.status_code, answer.json) == (503, BUSY)
        assert answer.headers["Retry-After"] == "1"
    assert http.get("/api/me", headers=session).status_code == 200
    assert http.get(KEYS, headers=session).status_code == 200


@pytest.mark.live
@pytest.mark.usefixtures("database_url")
def test_a_server_that_becomes_read_only_is_unhealthy_and_heals():
    """While the service runs: a full disk makes some operators do this."""
    own = Postgres()
    with prepared(own.url) as app:
        alice = Person(app, "alice")
        key = alice.key()
        assert told_of(app) == (200, "ok")
        own.set("default_transaction_read_only", "on")
        until = utcnow() + timedelta(seconds=10)
        while told_of(app)[0] == 200:
            assert utcnow() < until
        check_read_only(app, alice, key)
        with psycopg.connect(own.url, autocommit=True) as other:
            other.execute("SET default_transaction_read_only = off")
            other.execute("ALTER SYSTEM RESET default_transaction_read_only")
            other.execute("SELECT pg_reload_conf()")
        until = utcnow() + timedelta(seconds=10)
        while told_of(app)[0] != 200:
            assert utcnow() < until
        assert alice.call("DELETE", f"{KEYS}/{key['id']}").status_code == 200
    own.remove()
