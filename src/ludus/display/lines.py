"""Progress as plain lines, for logs: few enough to be read, often enough to know that it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ludus.display.board import Board
from ludus.display.numbers import clock as as_clock

SHORTEST_S, LONGEST_S = 5.0, 60.0
SHARE = 1 / 20
"""A line is due when a share of the time that has passed has passed again: 5 s at first, a minute in the end."""


def to_stderr(line: str) -> None:
    """Looked up each time: tests and live displays stand in for it."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Lines:
    """Evaluations, the first and the last step of a stage, and otherwise a line every few seconds.

    Args:
        title: what is running; written when it begins, so that a command that can't begin says only why.
        board: what is shown.
        clock: seconds.
        write: takes a line.
    """

    def __init__(
        self,
        title: str,
        board: Board,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = to_stderr,
    ) -> None:
        self._title, self._board, self._clock, self._write = title, board, clock, write
        self._start = self._last = clock()

    def begin(self) -> None:
        """Write the title, once."""
        if self._title:
            self._write(self._title)
            self._title = ""

    def see(self, row: dict[str, Any]) -> None:
        """Take in a row, and write a line if it is time."""
        board, now, phase = self._board, self._clock(), self._board.phase
        evaluation = board.see(row, now)
        is_step = "total" not in row
        at_an_end = is_step and (board.phase != phase or board.done == board.total)
        due = min(LONGEST_S, max(SHORTEST_S, SHARE * (now - self._start)))
        if evaluation or at_an_end or now - self._last >= due:
            self._last = now
            self.begin()
            self._write(f"[{as_clock(now - self._start):>6}] {evaluation or board.line()}")

    def refresh(self) -> None:
        """Lines come with what happens."""

    def say(self, text: str) -> None:
        """Write it."""
        self._write(text)
