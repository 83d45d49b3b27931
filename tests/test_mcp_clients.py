"""Real MCP clients against the real server.

They are the Python and the TypeScript SDK, each in both its lines, mcp-remote, the
inspector, and the scenarios of the conformance suite that ask for no fixture of an SDK.
What is not in requirements-dev.txt is installed once, at exact versions (npm.py).
"""

import asyncio
import json
import re
import sys
import venv

import npm
import pytest
from servers import Server

pytestmark = [
    pytest.mark.live,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]
SDK_1 = "mcp==1.30.0"
SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
SDKS = ["@modelcontextprotocol/client@2.3.1", "@modelcontextprotocol/sdk@1.32.2"]
REMOTE = "mcp-remote@0.15.1"
TOOLS = ["list_endpoints", "search_docs", "get_endpoint"]
REVOKE = {"method": "DELETE", "path": "/api/me/api-keys/{id}"}


@pytest.fixture(scope="module")
def url(migrated_app, database_url, tmp_path_factory):
    server = Server(
        database_url, tmp_path_factory.mktemp("mcp") / "log", WEB_CONCURRENCY="1"
    )
    yield f"{server.url}/mcp"
    server.stop()


@pytest.fixture(scope="session")
def node(pytestconfig):
    """Runs a program of the suite or the inspector."""
    programs = npm.installed(pytestconfig, SUITE, INSPECTOR) / ".bin"
    return lambda program, *words, **how: npm.node(programs / program, *words, **how)


@pytest.mark.parametrize(
    ("mode", "version"),
    [("auto", "2026-07-28"), ("2026-07-28", "2026-07-28"), ("legacy", "2025-11-25")],
)
def test_the_python_sdk_2_in_every_mode(url, mode, version):
    from mcp import Client, MCPError

    async def use():
        async with Client(url, mode=mode) as client:
            assert client.protocol_version == version
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
            with pytest.raises(MCPError, match="unknown tool"):
                await client.call_tool("nope", {})
            # The session outlived the error.
            page = await client.call_tool("get_endpoint", REVOKE)
            assert page.content[0].text.startswith("# DELETE /api/me/api-keys/{id}")

    asyncio.run(use())


SESSION_1 = """
import asyncio, sys
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamablehttp_client

async def use():
    async with streamablehttp_client(sys.argv[1]) as (read, write, _):
        async with ClientSession(read, write) as session:
            print((await session.initialize()).protocolVersion)
            print([tool.name for tool in (await session.list_tools()).tools])
            try:
                await session.call_tool("nope", {})
            except McpError as exc:
                print(exc)
            wanted = {"method": "DELETE", "path": "/api/me/api-keys/{id}"}
            page = await session.call_tool("get_endpoint", wanted)
            print(page.content[0].text.splitlines()[0])
            await session.send_ping()

asyncio.run(use())
"""


def test_the_python_sdk_1_keeps_its_session_after_an_error(url, pytestconfig):
    def fill(home):
        venv.create(home / "venv", with_pip=True, clear=True)
        npm.run([home / "venv/bin/pip", "install", "-q", SDK_1], check=True)

    name = f"venv {SDK_1} {sys.version_info[:2]}"
    python = npm.cached(pytestconfig, name, fill) / "venv/bin/python"
    told = npm.run([python, "-c", SESSION_1, url])
    assert told.stdout.decode().splitlines() == [
        "2025-11-25",
        str(TOOLS),
        "unknown tool, or arguments are no object",
        "# DELETE /api/me/api-keys/{id}",
    ], told.stderr.decode()


TYPESCRIPT = """
import { Client, StreamableHTTPClientTransport } from "PACKAGE";
const client = new Client({ name: "test", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const refused = await client.callTool({ name: "nope" }).catch((error) => error.message);
const wanted = { method: "DELETE", path: "/api/me/api-keys/{id}" };
const page = await client.callTool({ name: "get_endpoint", arguments: wanted });
console.log(JSON.stringify([tools, refused, page.content[0].text.split("\\n")[0]]));
await client.close();
"""
SDK_1_IMPORTS = """
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import {
  StreamableHTTPClientTransport
} from "@modelcontextprotocol/sdk/client/streamableHttp.js";
"""


@pytest.mark.parametrize("line", ["2.x", "1.x"])
def test_the_typescript_sdk_keeps_its_session_after_an_error(
    url, pytestconfig, tmp_path, line
):
    modules = npm.installed(pytestconfig, *SDKS, REMOTE)
    (tmp_path / "node_modules").symlink_to(modules)
    program = TYPESCRIPT.replace("PACKAGE", "@modelcontextprotocol/client")
    if line == "1.x":
        program = SDK_1_IMPORTS + "\n".join(TYPESCRIPT.splitlines()[2:])
    (tmp_path / "client.mjs").write_text(program)
    told = npm.node("client.mjs", url, cwd=tmp_path)
    tools, refused, heading = json.loads(told.stdout or told.stderr)
    assert (tools, heading) == (TOOLS, "# DELETE /api/me/api-keys/{id}")
    assert "unknown tool" in refused


def test_mcp_remote_asks_for_no_authorization(url, pytestconfig, tmp_path):
    """The OAuth metadata beside /mcp is not meant for it: /mcp is open."""
    from mcp import Client, StdioServerParameters

    remote = npm.installed(pytestconfig, *SDKS, REMOTE) / "mcp-remote/dist/proxy.js"
    proxy = StdioServerParameters(
        command=str(npm.NODE), args=[str(remote), url], env={"HOME": str(tmp_path)}
    )

    async def use():
        async with Client(proxy) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
            page = await client.call_tool("get_endpoint", REVOKE)
            assert page.content[0].text.startswith("# DELETE /api/me/api-keys/{id}")

    asyncio.run(use())


def test_the_inspector_takes_the_mcp_json_of_the_portal(url, node, tmp_path):
    import httpx

    page = httpx.get(url.replace("/mcp", "/docs")).text
    shown = re.search(r'<pre id="mcp-json"><code>(.*?)</code>', page, re.S)[1]
    pasted = json.loads(shown.replace("&#34;", '"'))
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": pasted}))
    words = ["--cli", "--config", config, "--server", *pasted, "--method"]
    listed = node("mcp-inspector", *words, "tools/list")
    tools = json.loads(listed.stdout)["tools"]
    assert [tool["name"] for tool in tools] == TOOLS, listed
    words += ["tools/call", "--tool-name", "search_docs", "--tool-arg", "query=revoke"]
    called = node("mcp-inspector", *words)
    text = json.loads(called.stdout)["content"][0]["text"]
    assert "DELETE /api/me/api-keys" in text, called


DIAGNOSTIC = "does not list the diagnostic tool"


@pytest.mark.long
@pytest.mark.parametrize(
    ("version", "scenario", "passed"),
    [
        ("2025-11-25", "server-initialize", "2/2"),
        ("2025-11-25", "ping", "2/2"),
        ("2025-11-25", "tools-list", "3/3"),
        ("2025-11-25", "dns-rebinding-protection", "2/2"),
        # It wants a session id; we have none.
        ("2025-11-25", "server-sse-multiple-streams", "0/0"),
        ("2026-07-28", "tools-list", "4/4"),
        ("2026-07-28", "dns-rebinding-protection", "2/2"),
        ("2026-07-28", "http-header-validation", "14/14"),
        # The other 4 want tools of a test server.
        ("2026-07-28", "server-stateless", "21/25"),
        ("2026-07-28", "server-sse-multiple-streams", "1/1"),
        ("2026-07-28", "input-required-result-unsupported-methods", "2/2"),
        ("2026-07-28", "input-required-result-ignore-extra-params", "1/1"),
    ],
)
def test_the_conformance_suite(url, node, tmp_path, version, scenario, passed):
    words = ["server", "--url", url, "--spec-version", version, "--scenario", scenario]
    told = node("conformance", *words, cwd=tmp_path).stdout.decode()
    assert f"Passed: {passed}, " in told, told
    done, of = map(int, passed.split("/"))
    assert f", {of - done} failed" in told
    assert len(re.findall(f"Error: Not testable: .*{DIAGNOSTIC}", told)) == of - done
