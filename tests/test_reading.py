"""One sitting: limits on what there is to read (DESIGN.md); imports point one way."""

import ast
import subprocess
import sys

import pytest
from servers import ROOT

from tools import reading

PARTS = reading.parts()
FILES = {name: figures for part in PARTS.values() for name, figures in part.items()}
TREES = {name: ast.parse((ROOT / name).read_text()) for name in FILES}
TOKENS = {  # any other extra: 1,000
    "core": 8_500,
    "extras/commands": 1_600,
    "extras/oidc": 3_050,
}
WHOLE = 20_950
TINY = 30  # tokens of a file whose density says nothing


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_read_in_its_time(part):
    figures = reading.together(list(PARTS[part].values()))
    assert figures.tokens <= TOKENS.get(part, 1_000)


def test_all_of_it_is_read_in_one_sitting():
    whole = reading.together(list(FILES.values()))
    assert whole.tokens <= WHOLE
    assert whole.density <= 7.5


def test_no_file_is_packed():
    dense = {
        name: round(figures.density, 1)
        for name, figures in FILES.items()
        if figures.tokens >= TINY and figures.density > 9
    }
    assert dense == {}


@pytest.mark.parametrize(
    "measure, limit", [("widest_line", 88), ("longest_function", 30), ("lines", 200)]
)
def test_it_fits_the_screen(measure, limit):
    over = {
        name: getattr(figures, measure)
        for name, figures in FILES.items()
        if getattr(figures, measure) > limit
    }
    assert over == {}


ONE_LINE = "def f(a, b):\n    return a + b\n"
SPREAD = '''\
"""A module."""


def f(
    a,
    b,
):
    """A function."""
    # A comment.
    return (
        a + b
    )
'''


def test_only_what_is_read_as_code_is_counted(tmp_path):
    """The commas and brackets that a formatter adds are all that spreading costs."""
    file = tmp_path / "file.py"
    counts = []
    for text in (ONE_LINE, SPREAD):
        file.write_text(text)
        counts.append(reading.read(file))
    one_line, spread = counts
    assert (one_line.tokens, one_line.code_lines) == (12, 2)
    assert (spread.tokens, spread.code_lines) == (15, 7)
    assert spread.longest_function == 9 and spread.widest_line == 21


# --- imports --------------------------------------------------------------------------

MAY_IMPORT = {  # of ours: app → extras → routes → auth, json_api → models → tokens
    "wsgi": {"app"},
    "app": {
        "auth",
        "config",
        "errors",
        "extras",
        "json_api",
        "models",
        "routes",
        "verify",
    },
    "extras": {
        "auth",
        "config",
        "errors",
        "json_api",
        "models",
        "origin",
        "routes",
        "schemas",
        "tokens",
        "verify",
    },
    "routes": {"auth", "json_api", "models", "routes", "schemas"},
    "errors": {"models", "origin", "schemas", "tokens"},
    "auth": {"models", "origin"},
    "json_api": set(),
    "verify": {"models", "origin"},
    "origin": {"models", "tokens"},
    "models": {"models", "tokens"},
    "schemas": {"schemas"},
    "tokens": set(),
    "config": set(),
    "gunicorn.conf": {"config"},
}
SHARED = "extras/operator.py"  # by several extras; it registers nothing
NEEDS = {  # of the extras: what goes with it
    "extras/audit_command.py": {"extras/commands"},
    "extras/mcp": {"extras/docs"},
    "extras/oidc": {"extras/account_page", "extras/commands"},
}


def imported(tree):
    """The modules that are imported anywhere in ``tree``, as ``models.user``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import names the whole module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_one_way(name):
    layer = name.partition("/")[0].removesuffix(".py")
    words = {module.partition(".")[0] for module in imported(TREES[name])}
    assert words & {*MAY_IMPORT} <= MAY_IMPORT[layer] | ({layer} & {"extras"})


@pytest.mark.parametrize("part", [part for part in PARTS if part != "core"])
def test_an_extra_needs_no_other(part):
    others = {module_of(other) for other in PARTS if other != "core"}
    allowed = (part, SHARED, *NEEDS.get(part, ()))
    others -= {module_of(each) for each in allowed}
    for name in PARTS[part]:
        for module in imported(TREES[name]):
            assert not any(f"{module}.".startswith(f"{other}.") for other in others)


def module_of(part):
    return part.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_imported_inside_a_function(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            assert list(imported(node)) == [], node.name


def test_the_application_imports_nothing_of_its_server():
    """Any WSGI server can run it; gunicorn.conf.py is gunicorn's own."""
    for name, tree in TREES.items():
        if name == "gunicorn.conf.py":
            continue
        assert not [word for word in imported(tree) if word.startswith("gunicorn")], (
            name
        )
    loaded = "import sys, wsgi; print(*(name for name in sys.modules))"
    command = [sys.executable, "-c", loaded]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "flask" in told.stdout.split()
    assert not [name for name in told.stdout.split() if name.startswith("gunicorn")]
