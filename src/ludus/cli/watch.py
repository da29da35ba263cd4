"""Progress on stderr: a live display on a terminal, a plain line every few seconds in a log. Both show one `Board`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ludus.cli.board import Board, sparkline
from ludus.cli.output import note

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EVERY_S = 5.0
EVERY_STEPS = 10


class Watcher(Protocol):
    """Whoever shows progress."""

    def begin(self) -> None:
        """The program has begun: nothing that could be known to be wrong is."""
        ...

    def see(self, row: dict[str, Any]) -> None:
        """Take in a row."""
        ...


@contextmanager
def watching(title: str, steps: Mapping[str, int]) -> Iterator[Watcher]:
    """Show progress while the block runs; the block tells what it is given.

    Args:
        title: what is running.
        steps: how many steps each stage has.
    """
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if not console.is_dumb_terminal:
            with _live(console, title, Board(steps)) as watcher:
                yield watcher
            return
    yield Lines(title, Board(steps))


class Lines:
    """Progress as plain lines: evaluations, the first step of a stage, and otherwise every few seconds or steps.

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
        write: Callable[[str], None] = note,
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
        stepped = "total" not in row and (
            board.phase != phase or board.done % EVERY_STEPS == 0 or board.done == board.total
        )
        if evaluation or stepped or now - self._last >= EVERY_S:
            self._last = now
            minutes, seconds = divmod(int(now - self._start), 60)
            self._write(f"[{minutes:3d}:{seconds:02d}] {evaluation or board.line()}")


@contextmanager
def _live(console: Console, title: str, board: Board) -> Iterator[Watcher]:
    from rich.live import Live

    start = time.monotonic()
    console.print(title, style="bold", markup=False)
    with Live(get_renderable=lambda: _picture(board, start), console=console, refresh_per_second=5, transient=True):
        yield _Above(console, board)


class _Above:
    """Keeps the board, and writes what is to stay above the live display."""

    def __init__(self, console: Console, board: Board) -> None:
        self._console, self._board = console, board

    def begin(self) -> None:
        """The title is there already."""

    def see(self, row: dict[str, Any]) -> None:
        """Take in a row; evaluations stay."""
        evaluation = self._board.see(row, time.monotonic())
        if evaluation:
            self._console.print(f"  {evaluation}", markup=False)


def _picture(board: Board, start: float) -> RenderableType:
    """What the live display shows: phase, bar and times; the last metrics; the rewards so far."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    now = time.monotonic()
    left = board.left_s(now)
    top = Table.grid(padding=(0, 2))
    bar = ProgressBar(board.total or None, board.done, width=32, pulse=not board.total)
    count = f"{board.done}/{board.total}" if board.total else ""
    top.add_row(Text(f"  {board.title}", "bold"), bar, count, Text(_times(now - start, left), "dim"))
    lines: list[RenderableType] = [top]
    if board.figures:
        text = Text("  ")
        for name, value in board.figures.items():
            text.append(f"{name} ", "dim").append(f"{value}   ")
        lines.append(text)
    if board.phase == "rl" and len(board.rewards) > 1:
        lines.append(Text("  ").append("reward ", "dim").append(sparkline(board.rewards), "green"))
    return Group(*lines)


def _times(passed_s: float, left_s: float | None) -> str:
    return _clock(passed_s) + (f", {_clock(left_s)} left" if left_s is not None else "")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
