"""Clients that generators make of the document, against the real server.

Each signs in, creates a key, lists it, revokes it and reads the audit trail.
"""

import json
import os
import sys
from pathlib import Path

import npm
import pytest
from servers import PASSWORD, Server

from app import create_app

pytestmark = [
    pytest.mark.live,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]
ORVAL = ["orval@8.38.0", "zod@4.6.7", "typescript@7.0.2"]
TYPESCRIPT = ["openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3"]


@pytest.fixture(scope="module")
def url(migrated_app, database_url, tmp_path_factory):
    log = tmp_path_factory.mktemp("generated") / "log"
    server = Server(database_url, log, WEB_CONCURRENCY="1")
    yield server.url
    server.stop()


@pytest.fixture
def document(database_url, tmp_path):
    """The file that a generator reads: what the service itself hands out."""
    http = create_app({"DATABASE_URL": database_url}).test_client()
    path = tmp_path / "openapi.json"
    path.write_text(http.get("/openapi.json").text)
    return path


PYTHON = """
import base64, json, sys
from latchkey_client import AuthenticatedClient, Client
from latchkey_client.api.api_keys import (
    create_key, list_audit_events, list_keys, revoke_all_keys, revoke_key
)
from latchkey_client.api.o_auth import introspect, metadata, revoke
from latchkey_client.api.sessions import login, logout, me
from latchkey_client.api.verification import healthz, verify
from latchkey_client.models import (
    ListAuditEventsEvent, Login, NewKey, NewKeyMode, TokenForm
)

url, password = sys.argv[1:]
anyone = Client(url, raise_on_unexpected_status=True)
session = login.sync(client=anyone, body=Login("alice", password)).data
client = AuthenticatedClient(url, session.token, raise_on_unexpected_status=True)
assert me.sync(client=client).data.username == session.user.username == "alice"

wanted = NewKey("generated", NewKeyMode.WRITE, password)
key = create_key.sync(client=client, body=wanted).data
assert round((key.expires_at - key.created_at).total_seconds() / 86400) == 90
brief = NewKey("brief", NewKeyMode.READ, password, expires_in_days=7)
other = create_key.sync(client=client, body=brief).data
wrong = create_key.sync(client=client, body=NewKey("no", NewKeyMode.READ, "wrong"))
assert wrong.data.errors[0].message == "incorrect_password"

listed = list_keys.sync(client=client, page_size=100).data
assert listed.pagination.page_size == 100 and listed.pagination.next_page is None
assert {key.id, other.id} <= {each.id for each in listed.api_keys}

gateway = AuthenticatedClient(url, key.token)
assert verify.sync_detailed(client=gateway, scope="write").status_code == 200
pair = base64.b64encode(f"{key.key_public}:{key.token}".encode()).decode()
service = Client(url, headers={"Authorization": f"Basic {pair}"})
form = TokenForm(other.token)
assert introspect.sync(client=service, body=form).username == "alice"
assert revoke.sync_detailed(client=anyone, body=form).status_code == 200
assert introspect.sync(client=service, body=form).active is False
assert metadata.sync(client=anyone).issuer == url
assert healthz.sync(client=anyone).message == "ok"

revoked = revoke_key.sync(key.id, client=client)
assert verify.sync_detailed(client=gateway).status_code == 401
again = revoke_key.sync("nothing", client=client)
assert again.data.errors[0].message == "not_found"
trail = list_audit_events.sync(
    client=client, event=ListAuditEventsEvent.REVOKED, api_key_id=key.id
).data.audit
assert revoke_all_keys.sync(client=client).data.revoked == 0
assert logout.sync(client=client).code == 200
print(json.dumps([revoked.message, [event.key_name for event in trail]]))
"""


def test_openapi_python_client(url, app, document, tmp_path):
    tools = Path(sys.executable).parent
    made = npm.run(
        [tools / "openapi-python-client", "generate", "--path", document]
        + ["--meta", "none", "--output-path", "latchkey_client", "--fail-on-warning"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )
    assert made.returncode == 0, made.stderr or made.stdout
    used = npm.run([sys.executable, "-c", PYTHON, url, PASSWORD], cwd=tmp_path)
    assert used.returncode == 0, used.stderr.decode()
    assert json.loads(used.stdout) == ["api key revoked successfully", ["generated"]]


PROGRAM = """
import createClient from "openapi-fetch";
import type { paths } from "./api.mjs";

declare const process: { argv: string[] };
const [url, password] = process.argv.slice(2) as [string, string];

const anyone = createClient<paths>({ baseUrl: url });
const login = await anyone.POST("/api/auth/login", {
  body: { username: "alice", password },
});
const token: string = login.data!.data.token;
const client = createClient<paths>({
  baseUrl: url,
  headers: { Authorization: `Bearer ${token}` },
});

const made = await client.POST("/api/me/api-keys", {
  body: { name: "generated", mode: "write", password },
});
const { id, status, last_used_at } = made.data!.data;
const life: ["active" | "revoked" | "expired", string | null] = [status, last_used_at];
const short = await client.POST("/api/me/api-keys", {
  body: { name: "generated", mode: "read", password, expires_in_days: 7 },
});
await client.POST("/api/me/api-keys", {
  // @ts-expect-error: the password is required
  body: { name: "generated", mode: "read" },
});
const listed = await client.GET("/api/me/api-keys", {
  params: { query: { page_size: 100 } },
});
const names = listed.data!.data.api_keys.map((key) => key.name);
const lost = await client.DELETE("/api/me/api-keys/{id}", {
  params: { path: { id: "nothing" } },
});
const revoked = await client.DELETE("/api/me/api-keys/{id}", {
  params: { path: { id } },
});
const trail = await client.GET("/api/me/api-keys/audit", {
  params: { query: { event: "revoked", api_key_id: id } },
});
const all = await client.DELETE("/api/me/api-keys");
const count: number = all.data!.data.revoked;
console.log(
  JSON.stringify({
    life,
    short: short.response.status,
    names,
    lost: lost.response.status,
    revoked: revoked.data!.message,
    trail: trail.data!.data.audit.map((event) => event.key_name),
    count,
  }),
);
"""


def test_openapi_typescript(url, app, document, tmp_path, pytestconfig):
    modules = npm.installed(pytestconfig, *TYPESCRIPT)
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "client.mts").write_text(PROGRAM)
    generator = modules / "openapi-typescript/bin/cli.js"
    made = npm.node(generator, document, "-o", "api.mts", cwd=tmp_path)
    assert made.returncode == 0, made.stderr.decode()
    compiler = modules / "typescript/bin/tsc"
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext"]
    checked = npm.node(compiler, *options, "client.mts", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout.decode()
    used = npm.node("client.mts", url, PASSWORD, cwd=tmp_path)
    assert used.returncode == 0, used.stderr.decode()
    assert json.loads(used.stdout) == {
        "life": ["active", None],
        "short": 201,
        "names": ["generated", "generated"],
        "lost": 404,
        "revoked": "api key revoked successfully",
        "trail": ["generated"],
        "count": 1,
    }


ORVAL_CONFIG = """
const [input, baseUrl] = ["openapi.json", URL];
export default {
  zod: { input, output: { client: "zod", target: "zod.ts" } },
  client: { input, output: { client: "fetch", target: "client.ts", baseUrl } },
};
"""
CHECKED = """
import * as api from "./client.ts";
import * as zod from "./zod.ts";

declare const process: { argv: string[] };
const [password] = process.argv.slice(2) as [string];
const used: string[] = [];

type Answer = { status: number; data: unknown };
type Schema = { parse(value: unknown): unknown };

/** Awaits the call; raises unless it has this status and an answer as documented. */
async function check<A extends Answer, S extends A["status"]>(
  call: Promise<A>,
  status: S,
  schema: Schema,
): Promise<Extract<A, { status: S }>> {
  const answer = await call;
  if (answer.status !== status) throw new Error(JSON.stringify(answer));
  schema.parse(answer.data);
  used.push(String(status));
  return answer as Extract<A, { status: S }>;
}
const authorized = (Authorization: string) => ({ headers: { Authorization } });

const who = zod.LoginBody.parse({ username: "alice", password });
const login = await check(api.login(who), 200, zod.LoginResponse);
const session = authorized(`Bearer ${login.data.data.token}`);
await check(api.me(session), 200, zod.MeResponse);

const wanted = zod.CreateKeyBody.parse({ name: "orval", mode: "write", password });
const made = await check(api.createKey(wanted, session), 201, zod.CreateKeyResponse);
const brief = { name: "brief", mode: "read", password, expires_in_days: 7 } as const;
const other = await check(api.createKey(brief, session), 201, zod.CreateKeyResponse);
const page = zod.ListKeysQueryParams.parse({ page_size: 100 });
await check(api.listKeys(page, session), 200, zod.ListKeysResponse);

const { id, key_public, token } = made.data.data;
const gateway = authorized(`Bearer ${token}`);
await check(api.verify({ scope: "write" }, gateway), 200, zod.VerifyResponse);
const client = authorized(`Basic ${btoa(`${key_public}:${token}`)}`);
const form = zod.IntrospectBody.parse({ token: other.data.data.token });
await check(api.introspect(form, client), 200, zod.IntrospectResponse);
await check(api.revoke(form), 200, zod.RevokeResponse);
await check(api.introspect(form, client), 200, zod.IntrospectResponse);
await check(api.metadata(), 200, zod.MetadataResponse);
await check(api.healthz(), 200, zod.HealthzResponse);

await check(api.revokeKey(id, session), 200, zod.RevokeKeyResponse);
const asked = { event: "revoked", api_key_id: id } as const;
await check(api.listAuditEvents(asked, session), 200, zod.ListAuditEventsResponse);
await check(api.revokeAllKeys(session), 200, zod.RevokeAllKeysResponse);
await check(api.logout(session), 200, zod.LogoutResponse);
console.log(JSON.stringify(used));
"""


@pytest.mark.long
def test_orval_and_its_zod_schemas_take_every_answer(
    url, app, document, tmp_path, pytestconfig
):
    modules = npm.installed(pytestconfig, *ORVAL)
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "orval.config.mjs").write_text(ORVAL_CONFIG.replace("URL", repr(url)))
    (tmp_path / "client.mts").write_text(CHECKED)
    made = npm.node(modules / "orval/dist/bin/orval.mjs", cwd=tmp_path)
    assert made.returncode == 0, made.stdout.decode()
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext"]
    options += ["--allowImportingTsExtensions", "--lib", "es2023,dom,dom.iterable"]
    compiler = modules / "typescript/bin/tsc"
    checked = npm.node(compiler, *options, "client.mts", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout.decode()
    used = npm.node("client.mts", PASSWORD, cwd=tmp_path)
    assert used.returncode == 0, used.stderr.decode()
    assert len(json.loads(used.stdout)) == 15
