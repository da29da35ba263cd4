"""Every code block of the documentation runs, page by page, in one namespace and one folder a page."""

from __future__ import annotations

import contextlib
import re
import sys
import types
from pathlib import Path

import pytest
from blocks import GENERATED, PAGES, ROOT, Block, blocks_of, earlier_files
from click.testing import CliRunner

from ludus.cli.main import main
from ludus.programs.advantages import ADVANTAGES
from ludus.sinks.sink import SINKS

LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


@pytest.fixture(autouse=True)
def same_names_after():
    """Pages register names and import files of their folder; the next page must not see them."""
    losses = pytest.importorskip("ludus.engine.torch.losses").LOSSES
    tables = [(table, dict(table)) for table in (ADVANTAGES, SINKS, losses)]
    path, modules = list(sys.path), set(sys.modules)
    yield
    for table, before in tables:
        table.clear()
        table.update(before)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("ludus_file_", "docs_page_")):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def run_commands(block: Block) -> None:
    typed = "".join(f"{line}\n" for line in block.marks.get("typed", "").split())
    for words in block.commands:
        result = CliRunner().invoke(main, words, input=typed)
        assert result.exit_code == 0, f"ludus {' '.join(words)}\n{result.output}\n{result.exc_info}"


def run_python(block: Block, namespace: dict[str, object], page_name: str) -> None:
    # leading newlines make the line numbers of tracebacks those of the page
    code = compile("\n" * (block.line - 1) + block.text, page_name, "exec", dont_inherit=True)
    exec(code, namespace)


LONG = (
    "3-evaluate.md", "4-warm-up.md", "5-train.md", "6-change-the-algorithm.md", "audit.md", "games.md", "mcp.md",
    "mixtures.md", "notebooks-and-sinks.md", "openenv.md", "prompts-and-data.md", "reasoning-gym.md", "reasoning.md",
    "tested-code.md",
)  # fmt: skip
"""Pages that start servers, train, or load much."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=pytest.mark.slow if page.name in LONG else ())
        for page in PAGES
        if page.name not in GENERATED
    ],
)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path):
    module = types.ModuleType(f"docs_page_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module  # type hints of classes are looked up there
    for name, text in earlier_files(page).items():
        write(tmp_path / name, text)
    with contextlib.chdir(tmp_path):
        for block in blocks_of(page):
            if "not run" in block.marks:
                continue
            if "file" in block.marks:
                write(tmp_path / block.marks["file"], block.text)
            elif block.language == "python":
                run_python(block, vars(module), page.name)
            elif block.language == "sh":
                run_commands(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.parent.name == "docs" and page.name != "index.md":
            assert f"]({page.name})" in index, f"docs/index.md does not mention {page.name}"


def test_pages_say_nothing_of_the_machine_they_were_written_on():
    for page in PAGES:
        assert str(ROOT) not in page.read_text(encoding="utf-8")
