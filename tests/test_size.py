"""Small is a feature, held by a ratchet: a commit that raises TOTAL says what for. And the order
of the modules: imports point one way."""

import ast
from pathlib import Path

TOTAL = 1721
ROOT = Path(__file__).parent.parent
FILES = [
    *ROOT.glob("*.py"),
    *(f for d in ("models", "schemas", "routes") for f in ROOT.glob(f"{d}/*")),
]
SOURCES = {f.relative_to(ROOT): f.read_text() for f in FILES if f.suffix == ".py"}


def test_all_of_it_fits_one_sitting():
    assert sum(text.count("\n") for text in SOURCES.values()) <= TOTAL


def test_no_file_is_over_150_lines():
    assert {str(f): n for f, text in SOURCES.items() if (n := text.count("\n")) > 150} == {}


def test_no_function_is_over_25_lines():
    for name, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 25, (name, node.name)


MAY_IMPORT = {  # of ours, app → routes → auth → models → tokens
    "wsgi": {"app"},
    "app": {"cli", "config", "errors", "models", "routes"},
    "gunicorn.conf": {"config"},
    "cli": {"models", "schemas", "tokens"},
    "routes": {"routes", "auth", "models", "schemas", "tokens"},
    "errors": {"models", "schemas", "tokens"},
    "auth": {"models", "tokens"},
    "models": {"models", "tokens"},
    "schemas": set(),
    "tokens": set(),
    "config": set(),
}


def imported(tree):
    """The first word of everything that is imported anywhere in ``tree``; a dot for ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module.partition(".")[0]


def test_imports_point_one_way():
    for name, text in SOURCES.items():
        ours = set(imported(ast.parse(text))) & {*MAY_IMPORT, "."}
        assert ours <= MAY_IMPORT[name.parts[0].removesuffix(".py")], name


def test_nothing_is_imported_inside_a_function():
    for name, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert list(imported(node)) == [], (name, node.name)
