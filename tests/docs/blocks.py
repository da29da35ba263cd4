"""The code blocks of a Markdown page, and how the tests run them.

A comment just before a block says what is special about it:

    <!-- not run: why -->           shown only
    <!-- file: NAME -->             written to that file instead of being run
    <!-- run with: words -->        the tests append these words to its `ludus` commands, to keep them short
    <!-- typed: words -->           what a person types, one word a line

and at the top of a page, `<!-- files from: PAGE PAGE -->` begins with the files of those pages.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
GENERATED = {"cli.md"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (not run|file|run with|typed): (.+?) -->\s*\Z")
FILES_FROM = re.compile(r"^<!-- files from: (.+?) -->$", re.MULTILINE)


@dataclass
class Block:
    """One fenced block."""

    language: str
    text: str
    line: int
    """Where its code begins in the page, from 1."""
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> list[list[str]]:
        """The `ludus` commands of a shell block, without the word itself."""
        lines = self.text.replace("\\\n", " ").splitlines()
        extra = shlex.split(self.marks.get("run with", ""))
        return [shlex.split(line, comments=True)[1:] + extra for line in lines if line.startswith("ludus ")]


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        marks, before = {}, text[: match.start()].rstrip()
        while found := COMMENT.search(before):
            marks[found[1]] = found[2]
            before = before[: found.start()].rstrip()
        blocks.append(Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1, marks))
    return blocks


def files_of(page: Path) -> dict[str, str]:
    """The files that a page tells its reader to write, by name."""
    return {block.marks["file"]: block.text for block in blocks_of(page) if "file" in block.marks}


def earlier_files(page: Path) -> dict[str, str]:
    """The files of the pages that this one goes on from."""
    found = FILES_FROM.search(page.read_text(encoding="utf-8"))
    return {
        name: text
        for other in (found[1].split() if found else ())
        for name, text in files_of(page.parent / other).items()
    }
