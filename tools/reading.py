"""How much there is to read: tokens, density and the longest of everything.

Tokens are Python's own (`tokenize`) without comments, docstrings, newlines and
indents, so joining or splitting lines does not change them. A line of code is a line
on which at least one such token starts. Run it: python3 tools/reading.py
"""

import ast
import io
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
CORE = ("*.py", "models/*.py", "schemas/*.py", "routes/*.py")
NOT_READ = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Reading(NamedTuple):
    """What one file, or several together, ask of a reader."""

    tokens: int
    code_lines: int
    lines: int
    longest_function: int
    widest_line: int

    @property
    def density(self) -> float:
        """Tokens on a line of code, in the mean."""
        return self.tokens / max(self.code_lines, 1)


def read(path: Path) -> Reading:
    """The figures of one file."""
    text = path.read_text()
    tree = ast.parse(text)
    docstrings = {position for node in ast.walk(tree) for position in docstring(node)}
    tokens = 0
    code_lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_READ and token.start not in docstrings:
            tokens += 1
            code_lines.add(token.start[0])
    lines = text.splitlines()
    return Reading(
        tokens=tokens,
        code_lines=len(code_lines),
        lines=len(lines),
        longest_function=max(map(function_length, ast.walk(tree))),
        widest_line=max(map(len, lines), default=0),
    )


def docstring(node: ast.AST) -> list[tuple[int, int]]:
    """Where the docstring of a module, class or function starts: line and column."""
    if isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node) is not None:
        return [(node.body[0].lineno, node.body[0].col_offset)]
    return []


def function_length(node: ast.AST) -> int:
    """The lines of a function from its ``def`` on, docstring included; else 0."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return (node.end_lineno or node.lineno) - node.lineno + 1
    return 0


def together(readings: list[Reading]) -> Reading:
    """The figures of several files: sums, and the longest and widest of all."""
    return Reading(
        tokens=sum(reading.tokens for reading in readings),
        code_lines=sum(reading.code_lines for reading in readings),
        lines=max((reading.lines for reading in readings), default=0),
        longest_function=max((r.longest_function for r in readings), default=0),
        widest_line=max((reading.widest_line for reading in readings), default=0),
    )


def parts() -> dict[str, dict[str, Reading]]:
    """The files of the core and of each extra, by part and by path."""
    core = [path for pattern in CORE for path in sorted(ROOT.glob(pattern))]
    found = {"core": core}
    for path in sorted((ROOT / "extras").iterdir()):
        if path.is_dir() and any(path.rglob("*.py")):
            found[f"extras/{path.name}"] = sorted(path.rglob("*.py"))
        elif path.suffix == ".py":
            found[f"extras/{path.name}"] = [path]
    return {
        part: {str(path.relative_to(ROOT)): read(path) for path in paths}
        for part, paths in found.items()
    }


def main() -> None:
    print(f"{'tokens':>7} {'a line':>7} {'lines':>6} {'function':>9} {'columns':>8}")
    every: list[Reading] = []
    for part, files in parts().items():
        for name, reading in files.items():
            show(f"  {name}", reading)
        show(f"{part} together", together(list(files.values())))
        every += files.values()
    show("the whole", together(every))


def show(name: str, reading: Reading) -> None:
    print(
        f"{reading.tokens:7,} {reading.density:7.1f} {reading.lines:6}"
        f" {reading.longest_function:9} {reading.widest_line:8}  {name}"
    )


if __name__ == "__main__":
    main()
