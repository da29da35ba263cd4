"""Progress where it is looked at: a live display on a terminal, an output that is updated in a notebook, a plain line
now and then anywhere else. All of them show one `Board`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from ludus.display.board import Board
from ludus.display.lines import Lines, to_stderr

Progress = Callable[[dict[str, Any]], None]
"""Takes the rows that a program reports."""


class Watcher(Protocol):
    """Whoever shows progress."""

    def begin(self) -> None:
        """The program has begun: nothing that could be known to be wrong is. What runs is said, to stay."""
        ...

    def see(self, row: dict[str, Any]) -> None:
        """Take in a row; called by the program's thread."""
        ...

    def refresh(self) -> None:
        """Show what is known now; called now and then by a thread that waits for the program."""
        ...

    def say(self, text: str) -> None:
        """A line from elsewhere, to stay."""
        ...


@contextmanager
def watching(title: str, steps: Mapping[str, int], instead: Progress | None = None) -> Iterator[Watcher]:
    """Show progress while the block runs; the block tells what it is given.

    Args:
        title: what is running.
        steps: how many steps each stage has.
        instead: is given the rows, and nothing is shown.
    """
    board = Board(steps)
    if instead is not None:
        yield _Unshown(instead)
    elif in_notebook():
        from ludus.display.notebook import Notebook

        with Notebook(title, board) as notebook:
            yield notebook
    elif _is_live():
        from ludus.display.terminal import Terminal

        with Terminal(title, board) as terminal:
            yield terminal
    else:
        yield Lines(title, board)


class _Unshown:
    """Progress that somebody else takes."""

    def __init__(self, take: Progress) -> None:
        self._take = take

    def begin(self) -> None:
        """Nothing is said."""

    def see(self, row: dict[str, Any]) -> None:
        """Pass it on."""
        self._take(row)

    def refresh(self) -> None:
        """Nothing is shown."""

    def say(self, text: str) -> None:
        """What is said is still heard."""
        to_stderr(text)


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def _is_live() -> bool:
    """Whether stderr can move its cursor. CI and commands in a notebook's cell may have a terminal that keeps it all."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    return not (os.environ.get("CI") or os.environ.get("JPY_PARENT_PID"))
