"""Lines of code that the same five environments take in several stacks: the table of docs/comparison.md.

    python -m benchmarks.authoring.count                        print it
    python -m benchmarks.authoring.count docs/comparison.md     write it there

Counted are lines with code on them, imports included; not blank lines, comments and docstrings. All files are formatted
alike, in lines of up to 120 characters. `check.py` plays each of them with the stack that it is written for.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {
    "single_turn": "one reply",
    "tools_with_state": "tools, with a state of each rollout",
    "game": "a game of several turns",
    "tested_code": "code, judged by hidden tests in a sandbox",
    "command_line": "a program as agent, in a sandbox",
}
STACKS = {
    "ludus_envs": "Ludus",
    "verifiers_v1": "verifiers 0.4.0",
    "inspect_tasks": "Inspect 0.3.285",
    "openenv_servers": "OpenEnv 0.10.0",
}
BEGIN, END = "<!-- begin: python -m benchmarks.authoring.count docs/comparison.md -->", "<!-- end -->"
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """Lines with code on them.

    >>> code_lines('"Doc."' + chr(10) + chr(10) + "x = [  # a list" + chr(10) + "    1]" + chr(10))
    2
    """
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    coded = {line for t in tokens if t.type not in NO_CODE for line in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            coded -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(coded)


def files_of(stack: str, kind: str) -> list[Path]:
    """The files of an environment; [] where the stack has no such kind."""
    path = HERE / stack / kind
    return sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")] if _exists(path) else []


def table() -> str:
    """A row for each kind, in Markdown."""
    rows = [["the agent", *STACKS.values()], ["---", *["---:"] * len(STACKS)]]
    for kind, name in KINDS.items():
        counts = [sum(code_lines(file.read_text()) for file in files_of(stack, kind)) for stack in STACKS]
        rows.append([name, *(str(count or "–") for count in counts)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_table(page: str) -> str:
    """A page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _exists(path: Path) -> bool:
    return path.with_suffix(".py").is_file()


if __name__ == "__main__":
    if sys.argv[1:]:
        page = Path(sys.argv[1])
        page.write_text(with_table(page.read_text()))
    else:
        print(table())
