"""Progress in a notebook: one output that is updated, so that thousands of steps leave a few lines in the file."""

from __future__ import annotations

import time
from html import escape
from importlib import import_module
from types import TracebackType
from typing import Any

from ludus.display.board import Board, sparkline

EVERY_S = 0.5
"""Between two updates."""


class Notebook:
    """An output of the cell that runs. Rows come from the program's thread; the cell's thread, which waits, shows."""

    def __init__(self, title: str, board: Board) -> None:
        self._title, self._board = title, board
        self._said: list[str] = []
        self._start = time.monotonic()
        self._shown_at = 0.0
        self._handle: Any = None

    def __enter__(self) -> Notebook:
        self._handle = import_module("IPython.display").display(self, display_id=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._board.end("done" if error is None else "ended early")
        self._handle.update(self)

    def begin(self) -> None:
        """The title is there already."""

    def see(self, row: dict[str, Any]) -> None:
        """Take in a row; evaluations stay."""
        evaluation = self._board.see(row, time.monotonic())
        if evaluation:
            self._said.append(evaluation)

    def refresh(self) -> None:
        """Show what is known now, if the last time was not just now."""
        now = time.monotonic()
        if now - self._shown_at >= EVERY_S:
            self._shown_at = now
            self._handle.update(self)

    def say(self, text: str) -> None:
        """A line to stay."""
        self._said.append(text)

    def __repr__(self) -> str:
        """For frontends that show text alone."""
        return "\n".join([self._title, *(f"  {line}" for line in self._said), f"  {self._board.line()}"])

    def _repr_html_(self) -> str:
        """No colours of its own, so that it can be read on any background."""
        board = self._board
        lines = [f"<b>{escape(self._title)}</b>", *(escape(line) for line in self._said)]
        bar = f'<progress value="{board.done}" max="{board.total}"></progress>' if board.total else ""
        parts = (escape(board.title), bar, board.count, board.times(self._start, time.monotonic()))
        lines.append(" &nbsp; ".join(part for part in parts if part))
        if board.figures:
            lines.append(" &nbsp; ".join(escape(f"{name} {value}") for name, value in board.figures.items()))
        if len(board.rewards) > 1:
            lines.append(f"reward {sparkline(board.rewards)}")
        return f"<div>{'<br>'.join(lines)}</div>"
