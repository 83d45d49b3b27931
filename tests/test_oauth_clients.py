"""Real OAuth clients against the real server: discovery, introspection, revocation.

They are Authlib, openid-client and oauth4webapi (npm), and FastMCP's verifier. What is
not in requirements-dev.txt is installed once, at exact versions (npm.py). Apache's
mod_oauth2 is in test_apache.py.
"""

import json
import sys
import venv

import httpx
import npm
import pytest
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from mcp.shared.auth import OAuthMetadata
from pydantic import ValidationError
from servers import Server

pytestmark = [
    pytest.mark.live,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]
PROGRAMS = ["openid-client@6.9.0", "oauth4webapi@3.8.8"]
FASTMCP = "fastmcp==4.2.3"
METHODS = ["client_secret_basic", "client_secret_post"]
INACTIVE = {"active": False}
UNKNOWN_CLIENT = {"status": 401, "error": "invalid_client"}


@pytest.fixture(scope="module")
def url(migrated_app, database_url, tmp_path_factory):
    """Two workers: what one has revoked, the other one refuses."""
    log = tmp_path_factory.mktemp("oauth") / "log"
    server = Server(database_url, log, WEB_CONCURRENCY="2")
    yield server.url
    server.stop()


@pytest.fixture
def service(bob):
    """The key of a service that asks about other people's: its credentials for that."""
    return bob.key(name="gateway")


def discovered(url):
    """The metadata, found as Authlib says."""
    answer = httpx.get(get_well_known_url(url, external=True))
    return AuthorizationServerMetadata(answer.raise_for_status().json())


def authlib(url, method, service, *steps):
    """What Authlib is told at each step; it sends HTTP Basic as it is."""
    server = discovered(url)
    assert method in server.introspection_endpoint_auth_methods_supported
    told = []
    with OAuth2Client(
        service["key_public"],
        service["token"],
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
    ) as client:
        for step, token in steps:
            if step == "introspect":
                answer = client.introspect_token(
                    server.introspection_endpoint, token=token
                )
            else:
                answer = client.revoke_token(server.revocation_endpoint, token=token)
            status = {} if answer.is_success else {"status": answer.status_code}
            told.append({**status, **answer.json()} if answer.content else None)
    return told


# Each does the steps and prints what it was told. HTTP Basic comes form-urlencoded, as
# RFC 6749, 2.3.1 wants it: `_` as %5F.
OPENID_CLIENT = """
import * as openid from "openid-client";
const authentications = {
  client_secret_basic: openid.ClientSecretBasic,
  client_secret_post: openid.ClientSecretPost,
};
const [url, method, id, secret, steps] = process.argv.slice(2);
const server = await openid.discovery(
  new URL(url),
  id,
  undefined,
  authentications[method](secret),
  { algorithm: "oauth2", execute: [openid.allowInsecureRequests] },
);
const use = {
  introspect: (token) => openid.tokenIntrospection(server, token),
  revoke: (token) => openid.tokenRevocation(server, token),
};
"""
OAUTH4WEBAPI = """
import * as oauth from "oauth4webapi";
const authentications = {
  client_secret_basic: oauth.ClientSecretBasic,
  client_secret_post: oauth.ClientSecretPost,
};
const [url, method, id, secret, steps] = process.argv.slice(2);
const insecure = { [oauth.allowInsecureRequests]: true };
const found = await oauth.discoveryRequest(
  new URL(url),
  { algorithm: "oauth2", ...insecure },
);
const server = await oauth.processDiscoveryResponse(new URL(url), found);
const client = { client_id: id };
const asked = [server, client, authentications[method](secret)];
const use = {
  async introspect(token) {
    const answer = await oauth.introspectionRequest(...asked, token, insecure);
    return oauth.processIntrospectionResponse(server, client, answer);
  },
  async revoke(token) {
    const answer = await oauth.revocationRequest(...asked, token, insecure);
    return oauth.processRevocationResponse(answer);
  },
};
"""
STEPS = """
async function refused(error) {
  return { status: error.status, ...(await error.response.json()) };
}
const told = [];
for (const [step, token] of JSON.parse(steps))
  told.push((await use[step](token).catch(refused)) ?? null);
console.log(JSON.stringify(told));
"""


@pytest.fixture(params=["authlib", "openid-client", "oauth4webapi"])
def client(request, pytestconfig, tmp_path):
    """Does steps with a client, and returns what that client was told at each."""
    if request.param == "authlib":
        return authlib
    modules = npm.installed(pytestconfig, *PROGRAMS)
    (tmp_path / "node_modules").symlink_to(modules)
    program = OPENID_CLIENT if request.param == "openid-client" else OAUTH4WEBAPI
    (tmp_path / "client.mjs").write_text(program + STEPS)

    def use(url, method, service, *steps):
        words = [url, method, service["key_public"], service["token"]]
        told = npm.node("client.mjs", *words, json.dumps(steps), cwd=tmp_path)
        assert told.returncode == 0, told.stderr.decode()
        return json.loads(told.stdout)

    return use


@pytest.mark.parametrize("method", METHODS)
def test_a_client_introspects_and_revokes(client, url, method, alice, bob, service):
    key, other = alice.key(mode="write"), alice.key()
    ask, ask_other = ("introspect", key["token"]), ("introspect", other["token"])
    good, nothing, dead, unknown, living = client(
        url,
        method,
        service,
        ask,
        ("revoke", key["token"]),
        ask,
        ("introspect", "no token"),
        ask_other,
    )
    assert (good["active"], good["username"], good["scope"]) == (
        True,
        "alice",
        "read write",
    )
    assert (nothing, dead, unknown) == (None, INACTIVE, INACTIVE)
    assert (living["active"], living["jti"]) == (True, other["id"])
    alice.call("DELETE", f"/api/me/api-keys/{other['id']}")
    assert client(url, method, service, ask_other) == [INACTIVE]
    bob.call("DELETE", f"/api/me/api-keys/{service['id']}")
    assert client(url, method, service, ask_other) == [UNKNOWN_CLIENT]


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_client_is_told_so(client, url, method, alice, service):
    ask = ("introspect", alice.key()["token"])
    for wrong in ({"key_public": "somebodyelse"}, {"token": "a+b %5F% c"}):
        told = client(url, method, {**service, **wrong}, ask)
        assert told == [UNKNOWN_CLIENT]


def test_strict_validators_miss_only_where_tokens_are_issued(url):
    """No token is issued by OAuth, so there is no such endpoint and no such type.

    With these three, both take the document: nothing else in it is wrong. To a client
    that only introspects or revokes they mean nothing.
    """
    metadata = discovered(url)
    lacking = {
        "authorization_endpoint": f"{url}/no",
        "token_endpoint": f"{url}/no",
        "response_types_supported": ["none"],
    }
    for name in lacking:
        with pytest.raises(ValueError, match=name):
            AuthorizationServerMetadata({**metadata, **lacking, name: None}).validate()
    AuthorizationServerMetadata({**metadata, **lacking}).validate()
    with pytest.raises(ValidationError) as refused:
        OAuthMetadata.model_validate(metadata)
    told = {error["loc"]: error["type"] for error in refused.value.errors()}
    assert told == {
        ("authorization_endpoint",): "missing",
        ("token_endpoint",): "missing",
    }
    OAuthMetadata.model_validate({**metadata, **lacking})
    assert [] not in metadata.values()  # RFC 8414, 3.2


@pytest.fixture(scope="module")
def fastmcp(pytestconfig):
    """Runs a program of FastMCP's, and returns the lines that it prints, from JSON."""

    def fill(home):
        venv.create(home / "venv", with_pip=True, clear=True)
        npm.run([home / "venv/bin/pip", "install", "-q", FASTMCP], check=True)

    name = f"venv {FASTMCP} {sys.version_info[:2]}"
    python = npm.cached(pytestconfig, name, fill) / "venv/bin/python"

    def use(program, *words):
        told = npm.run([python, "-c", program, *words])
        assert told.returncode == 0, told.stderr.decode()
        return [json.loads(line) for line in told.stdout.splitlines()]

    return use


# One verifier: nothing it has learned outlives the revocation.
VERIFIER = """
import asyncio, json, sys
import httpx2
from fastmcp.server.auth.providers.introspection import IntrospectionTokenVerifier

url, method, client_id, client_secret, reader, writer = sys.argv[1:]
verifier = IntrospectionTokenVerifier(
    introspection_url=f"{url}/oauth/introspect",
    client_id=client_id,
    client_secret=client_secret,
    client_auth_method=method,
    required_scopes=["write"],
)

async def show(token):
    found = await verifier.verify_token(token)
    print(json.dumps(found and [found.subject, found.client_id, found.scopes]))

async def use():
    await show(reader)
    await show(writer)
    revoked = httpx2.post(f"{url}/oauth/revoke", data={"token": writer})
    revoked.raise_for_status()
    await show(writer)

asyncio.run(use())
"""


@pytest.mark.parametrize("method", METHODS)
def test_fastmcp_lets_a_key_in_by_its_scope_and_never_a_revoked_one(
    fastmcp, url, method, alice, service
):
    reader, writer = alice.key(), alice.key(mode="write")
    tokens = [reader["token"], writer["token"]]
    words = [url, method, service["key_public"], service["token"], *tokens]
    found = [writer["user_id"], writer["key_public"], ["read", "write"]]
    assert fastmcp(VERIFIER, *words) == [None, found, None]


def test_fastmcp_lets_nobody_in_when_it_is_no_client(fastmcp, url, alice, service):
    token = alice.key(mode="write")["token"]
    words = [url, METHODS[0], "somebodyelse", service["token"], token, token]
    assert fastmcp(VERIFIER, *words) == [None, None, None]


READY_FOR_OAUTH = """
import asyncio, json, sys
from fastmcp import Client

async def use():
    async with Client(sys.argv[1], auth="oauth") as client:
        print(json.dumps([tool.name for tool in await client.list_tools()]))

asyncio.run(use())
"""


def test_an_ai_tool_that_is_ready_for_oauth_is_not_driven_into_it(fastmcp, url):
    """/mcp is open: it never says 401, so nobody looks for the metadata beside it.

    mcp-remote, which looks for it first, is in test_mcp_clients.py.
    """
    [tools] = fastmcp(READY_FOR_OAUTH, f"{url}/mcp")
    assert "search_docs" in tools
