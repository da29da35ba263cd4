"""The table of docs/comparison.md is the one that is counted, and what is counted works."""

import importlib.util
import subprocess
import sys

import pytest
from benchmarks.authoring.count import HERE, KINDS, STACKS, code_lines, files_of, table, with_table
from blocks import ROOT, blocks_of

from ludus.sandbox import capabilities

PAGE = ROOT / "docs" / "comparison.md"
VERIFIERS = ROOT / ".bench" / "verifiers-0.4.0" / "bin" / "python"
PEERS = {
    "verifiers_v1": str(VERIFIERS) if VERIFIERS.exists() else "",
    "inspect_tasks": sys.executable if importlib.util.find_spec("inspect_ai") else "",
    "openenv_servers": sys.executable if importlib.util.find_spec("openenv") else "",
}


def test_the_table_is_up_to_date():
    page = PAGE.read_text()
    assert table() in page and with_table(page) == page, "run python -m benchmarks.authoring.count docs/comparison.md"


def test_the_example_is_what_is_counted():
    shown = next(block.text for block in blocks_of(PAGE) if block.marks.get("file") == "backward.py")
    assert code_lines(shown) == code_lines((HERE / "ludus_envs" / "single_turn.py").read_text())
    assert shown in (HERE / "ludus_envs" / "single_turn.py").read_text()


def test_lines_with_code_are_counted():
    source = '"""Doc."""\n\n# why\nx = [  # a list\n    1,\n\n    """two\nlines""",\n]\n\n'
    source += 'def f():\n    "Doc."\n    return x\n'
    assert code_lines(source) == 7


def test_every_stack_has_every_kind_but_one():
    missing = [(stack, kind) for stack in STACKS for kind in KINDS if not files_of(stack, kind)]
    assert missing == [("openenv_servers", "command_line")]


@pytest.mark.skipif(capabilities().tier is None, reason="this machine can't contain code")
@pytest.mark.slow
def test_ours_work():
    assert played("ludus_envs", sys.executable) == len(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("stack", PEERS)
def test_those_of_others_work(stack):
    if not PEERS[stack]:
        pytest.skip(f"{STACKS[stack]} is not installed")
    assert played(stack, PEERS[stack]) == sum(bool(files_of(stack, kind)) for kind in KINDS)


def played(stack: str, python: str) -> int:
    command = [python, "-m", "benchmarks.authoring.check", stack]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.count("ok  ")
