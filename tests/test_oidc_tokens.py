"""What an identity provider says is believed only if all of it is right.

The provider here is our own: no real one signs what it should not.
"""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from oidc import Forger, settings
from servers import disconnect

from app import create_app

EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT = "/login/oidc/logout"
NOW = time.time()


@pytest.fixture(scope="module")
def forger():
    with Forger().running() as forger:
        yield forger


@pytest.fixture
def latchkey(app, database_url, forger):
    environ = {"DATABASE_URL": database_url, "LATCHKEY_BCRYPT_ROUNDS": "4"}
    environ["LATCHKEY_LOGIN_FAILURES"] = "1000"
    made = create_app(environ | settings(forger.issuer))
    yield made
    disconnect(made)


def begin(browser):
    """What the browser brings to the provider."""
    query = parse_qs(urlsplit(browser.get("/login/oidc").location).query)
    return {name: value for name, [value] in query.items()}


def finish(browser, forger, asked, id_token, **query):
    """Come back from the provider, which has this token for us."""
    forger.answers["/token"] = {"id_token": id_token, "access_token": "any"}
    query = {"code": "any", "state": asked["state"], **query}
    return browser.get("/login/oidc/callback", query_string=query)


def is_in(browser):
    return browser.get("/api/me").status_code == 200


def refusals(sql):
    rows = sql("SELECT reason, path FROM audit_events WHERE event = 'oidc_refused'")
    return [tuple(row) for row in rows]


def test_a_good_token_signs_in(latchkey, forger):
    browser = latchkey.test_client()
    asked = begin(browser)
    token = forger.sign(forger.claims(nonce=asked["nonce"]))
    assert finish(browser, forger, asked, token).location == "/"
    assert is_in(browser)


@pytest.mark.parametrize(
    "key, alg",
    [
        (RSAKey.generate_key(2048), "PS256"),
        (ECKey.generate_key("P-256"), "ES256"),
        (OKPKey.generate_key("Ed25519"), "Ed25519"),
    ],
    ids=["PS256", "ES256", "Ed25519"],
)
def test_asymmetric_algorithms_are_taken(latchkey, forger, key, alg):
    """Keys of other kinds beside them do no harm."""
    key.ensure_kid()
    public = key.as_dict(private=False)
    others = [{"kty": "oct", "k": "AAAA"}, {"kty": "of tomorrow"}]
    forger.answers["/keys"] = {"keys": [*others, public]}
    browser = latchkey.test_client()
    asked = begin(browser)
    claims = forger.claims(nonce=asked["nonce"])
    token = forger.sign(claims, {"alg": alg, "kid": public["kid"]}, key)
    finish(browser, forger, asked, token)
    forger.publish()
    assert is_in(browser)


STRANGER = RSAKey.generate_key(2048, {"kid": "1"})


def by_hand(header, claims, secret=b""):
    """A token that no library makes: HS256 with this secret, or no signature."""
    parts = [json.dumps(part).encode() for part in (header, claims)]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.digest(secret, signed, "sha256") if secret else b""
    return f"{signed.decode()}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


def with_public_key(forger, claims):
    """HS256, whose secret is the provider's public key."""
    pem = forger.keys["1"].as_pem(private=False)
    return by_hand({"alg": "HS256", "kid": "1"}, claims, pem)


def with_client_secret(forger, claims):
    """HS256 with the client's secret, which OpenID Connect allows and we do not."""
    return forger.sign(claims, {"alg": "HS256"}, OctKey.import_key("s" * 40))


def changed(forger, claims):
    head, body, signature = forger.sign(claims).split(".")
    other = json.dumps(claims | {"sub": "alice"}).encode()
    return ".".join([head, urlsafe_b64encode(other).decode().rstrip("="), signature])


def embedded_key(forger, claims):
    """The token brings its own key."""
    header = {"jwk": STRANGER.as_dict(private=False)}
    return forger.sign(claims, header, STRANGER)


FORGED = {
    "another key": lambda forger, claims: forger.sign(claims, key=STRANGER),
    "a key of its own": embedded_key,
    "an unknown key": lambda forger, claims: forger.sign(claims, {"kid": "9"}),
    "alg none": lambda forger, claims: by_hand({"alg": "none"}, claims),
    "HS256 with the public key": with_public_key,
    "HS256 with the client's secret": with_client_secret,
    "other claims": changed,
    "no signature": lambda f, claims: f.sign(claims).rpartition(".")[0] + ".",
    "not a token": lambda forger, claims: "a.b.c",
    "empty": lambda forger, claims: "",
    "not ASCII": lambda forger, claims: "ä.ö.ü",
    "a number": lambda forger, claims: 7,
}
WRONG = {  # claims
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "somebody"},
    "other audiences": {"aud": ["somebody", "latchkey2"]},
    "no audience": {"aud": None},
    "made for another client": {"aud": ["latchkey", "other"], "azp": "other"},
    "expired": {"exp": int(NOW) - 3600},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "tomorrow"},
    "issued tomorrow": {"iat": int(NOW) + 86400},
    "no time": {"iat": None},
    "not yet": {"nbf": int(NOW) + 86400},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is no text": {"sub": 7},
    "signed in tomorrow": {"auth_time": int(NOW) + 86400},
    "signed in at no time": {"auth_time": "now"},
    "another nonce": {"nonce": "another"},
    "no nonce": {"nonce": None},
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_token_is_refused(latchkey, forger, sql, forge):
    browser = latchkey.test_client()
    asked = begin(browser)
    token = forge(forger, forger.claims(nonce=asked["nonce"]))
    answer = finish(browser, forger, asked, token)
    assert answer.location == "/#bad_token" and not is_in(browser)
    assert refusals(sql) == [("bad_token", "/login/oidc/callback")]
    assert sql("SELECT * FROM sessions") == sql("SELECT * FROM identities") == []


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_token_with_a_wrong_claim_is_refused(latchkey, forger, sql, wrong):
    browser = latchkey.test_client()
    asked = begin(browser)
    token = forger.sign(forger.claims(**{"nonce": asked["nonce"], **wrong}))
    answer = finish(browser, forger, asked, token)
    assert answer.location == "/#bad_token" and not is_in(browser)
    assert refusals(sql) == [("bad_token", "/login/oidc/callback")]


def test_a_token_of_one_sign_in_is_refused_in_another(latchkey, forger):
    first, second = latchkey.test_client(), latchkey.test_client()
    asked = begin(first)
    token = forger.sign(forger.claims(nonce=asked["nonce"]))
    finish(first, forger, asked, token)
    assert finish(second, forger, begin(second), token).location == "/#bad_token"
    assert is_in(first) and not is_in(second)


def test_user_info_of_somebody_else_is_refused(latchkey, forger):
    browser = latchkey.test_client()
    asked = begin(browser)
    forger.answers["/me"] = {"sub": "alice", "preferred_username": "alice"}
    claims = forger.claims(nonce=asked["nonce"], preferred_username=None)
    answer = finish(browser, forger, asked, forger.sign(claims))
    assert answer.location == "/#bad_token"


def test_a_redirect_of_another_issuer_is_refused(latchkey, forger):
    """RFC 9207."""
    browser = latchkey.test_client()
    asked = begin(browser)
    token = forger.sign(forger.claims(nonce=asked["nonce"]))
    answer = finish(browser, forger, asked, token, iss="https://evil.example")
    assert answer.location == "/#other_issuer"


NAMES = {
    "Dora Example": "dora-example",
    "dora@example.org": "dora@example.org",
    "DORA\r\nX-User-Id: 1": "dora-x-user-id-1",
    "Дора": "user",
    "": "user",
    "a" * 100: "a" * 50,
}


@pytest.mark.parametrize("wanted", NAMES, ids=repr)
def test_a_name_fits_a_header(latchkey, forger, wanted):
    browser = latchkey.test_client()
    asked = begin(browser)
    claims = forger.claims(nonce=asked["nonce"], preferred_username=wanted)
    finish(browser, forger, asked, forger.sign(claims))
    assert browser.get("/api/me").json["data"]["username"] == NAMES[wanted]


def test_a_name_that_is_taken_is_not_taken_over(latchkey, forger, alice):
    """Neither a name nor a confirmed address links an identity to a user."""
    browser = latchkey.test_client()
    asked = begin(browser)
    more = {"email": "alice@example.org", "email_verified": True}
    claims = forger.claims(nonce=asked["nonce"], preferred_username="Alice", **more)
    finish(browser, forger, asked, forger.sign(claims))
    me = browser.get("/api/me").json["data"]
    assert me["username"].startswith("alice-")
    assert me["id"] != alice.call("GET", "/api/me").json["data"]["id"]


# --- the provider does not answer as it should ----------------------------------------


def drip(handler):
    """A byte a second."""
    for _ in range(8):
        handler.wfile.write(b"H")
        time.sleep(1)


def hang(handler):
    time.sleep(8)


def redirect(handler):
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.end_headers()


BROKEN = {
    "it hangs": hang,
    "it drips": drip,
    "it redirects": redirect,
    "it has another issuer": {"issuer": "https://evil.example"},
    "it has no members": {},
    "no object": [1],
    "no JSON": b"<html>",
    "too long": {"padding": "a" * 400_000},
    "another scheme": {"token_endpoint": "file:///etc/passwd"},
    "in the clear": {"token_endpoint": "http://0.0.0.0:{port}/token"},
    "almost this machine": {"token_endpoint": "http://localhost.example.org/token"},
}


@pytest.mark.live
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_broken_provider_is_told_within_five_seconds(
    latchkey, forger, sql, verify, answer
):
    where = "/.well-known/openid-configuration"
    good = forger.answers[where]
    if isinstance(answer, dict):
        answer = (good | answer) if answer else {"issuer": forger.issuer}
        answer = json.loads(
            json.dumps(answer).replace("{port}", str(forger.server_port))
        )
    forger.answers["/elsewhere"] = good
    forger.answers[where] = answer
    started = time.monotonic()
    browser = latchkey.test_client()
    try:
        told = browser.get("/login/oidc")
        if told.location.startswith(forger.issuer):  # only the token endpoint is bad
            state = parse_qs(urlsplit(told.location).query)["state"][0]
            told = finish(browser, forger, {"state": state}, "any")
    finally:
        forger.answers[where] = good
    assert time.monotonic() - started < 5
    assert told.location in ("/#provider_failed", "/#other_issuer")
    assert len(refusals(sql)) == 1


# --- back-channel logout --------------------------------------------------------------


@pytest.fixture
def browser(latchkey, forger):
    """Dora's, signed in."""
    browser = latchkey.test_client()
    asked = begin(browser)
    token = forger.sign(forger.claims(nonce=asked["nonce"], sid="here"))
    finish(browser, forger, asked, token)
    assert is_in(browser)
    return browser


def logout_claims(forger, **changes):
    standard = {"events": {EVENT: {}}, "jti": f"{time.time_ns()}", "sid": "here"}
    less = {"auth_time": None, "preferred_username": None}
    return forger.claims(**{**standard, **less, **changes})


def log_out(latchkey, token):
    return latchkey.test_client().post(LOGOUT, data={"logout_token": token})


@pytest.mark.parametrize("changes", [{}, {"sub": None}, {"sid": None}])
def test_the_provider_ends_a_session(latchkey, forger, browser, sql, changes):
    token = forger.sign(logout_claims(forger, **changes), {"typ": "logout+jwt"})
    answer = log_out(latchkey, token)
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert not is_in(browser)
    assert sql("SELECT * FROM provider_sessions") == []
    [[reason, username]] = sql(
        "SELECT reason, username FROM audit_events JOIN users ON users.id = user_id"
        " WHERE event = 'signed_out'"
    )
    assert (reason, username) == ("oidc", "dora")


@pytest.mark.parametrize(
    "changes", [{"sid": "there"}, {"sid": None, "sub": "bob"}], ids=["sid", "sub"]
)
def test_it_ends_no_other_session(latchkey, forger, browser, changes):
    token = forger.sign(logout_claims(forger, **changes))
    assert log_out(latchkey, token).status_code == 200
    assert is_in(browser)


WRONG_LOGOUT = {
    "no event": {"events": None},
    "another event": {"events": {"http://schemas.openid.net/event/other": {}}},
    "a nonce": {"nonce": "any"},
    "no id": {"jti": None},
    "an id that is no text": {"jti": 7},
    "nobody": {"sub": None, "sid": None},
    "old": {"iat": int(NOW) - 3600},
    **{name: WRONG[name] for name in list(WRONG)[:7]},
    "issued tomorrow": WRONG["issued tomorrow"],
    "no time": WRONG["no time"],
}


@pytest.mark.parametrize("wrong", WRONG_LOGOUT.values(), ids=WRONG_LOGOUT)
def test_a_wrong_logout_token_ends_nothing(latchkey, forger, browser, sql, wrong):
    answer = log_out(latchkey, forger.sign(logout_claims(forger, **wrong)))
    assert (answer.status_code, answer.json) == (400, {"error": "invalid_request"})
    assert is_in(browser)
    [[_, path]] = refusals(sql)
    assert path == LOGOUT


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_logout_token_ends_nothing(latchkey, forger, browser, forge):
    token = forge(forger, logout_claims(forger))
    assert log_out(latchkey, token).status_code == 400
    assert is_in(browser)


def test_without_a_token_it_is_400(latchkey, browser):
    assert latchkey.test_client().post(LOGOUT).status_code == 400
    assert is_in(browser)


def test_an_id_token_is_no_logout_token(latchkey, forger, browser):
    for nonce in ("any", None):
        token = forger.sign(forger.claims(nonce=nonce, sid="here", jti="any"))
        assert log_out(latchkey, token).status_code == 400
    assert is_in(browser)


def test_a_logout_token_works_once(latchkey, forger, browser):
    token = forger.sign(logout_claims(forger))
    assert log_out(latchkey, token).status_code == 200
    asked = begin(browser)
    good = forger.sign(forger.claims(nonce=asked["nonce"], sid="here"))
    finish(browser, forger, asked, good)
    assert log_out(latchkey, token).status_code == 400
    assert is_in(browser)


def test_refusals_fill_no_disk(app, database_url, forger, sql):
    """From one network only so many are written as wrong passwords."""
    environ = {"DATABASE_URL": database_url, "LATCHKEY_LOGIN_FAILURES": "3"}
    made = create_app(environ | settings(forger.issuer))
    answers = [made.test_client().get("/login/oidc/callback") for _ in range(9)]
    assert {answer.location for answer in answers} == {"/#other_state"}
    assert len(refusals(sql)) == 3
    browser = made.test_client()  # who may sign in still may
    asked = begin(browser)
    token = forger.sign(forger.claims(nonce=asked["nonce"]))
    finish(browser, forger, asked, token)
    assert is_in(browser)
    disconnect(made)


@pytest.mark.live
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_while_the_provider_hangs_verifications_are_answered(
    app, serve, forger, alice, database_url
):
    """At most three of a worker's four threads wait for it; the others are refused."""
    server = serve(**settings(forger.issuer), WEB_CONCURRENCY="1")
    where = "/.well-known/openid-configuration"
    good, key = forger.answers[where], alice.key()
    bearer = {"Authorization": f"Bearer {key['token']}"}
    forger.answers[where] = hang

    def begin():
        return httpx.get(f"{server.url}/login/oidc", timeout=20).headers["Location"]

    try:
        with ThreadPoolExecutor(8) as crowd:
            waiting = [crowd.submit(begin) for _ in range(8)]
            time.sleep(0.5)
            verdict = httpx.get(f"{server.url}/verify", headers=bearer)
            assert verdict.status_code == 200
            assert not all(each.done() for each in waiting)
            assert {each.result() for each in waiting} == {"/#provider_failed"}
    finally:
        forger.answers[where] = good
