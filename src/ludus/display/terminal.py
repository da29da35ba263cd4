"""Progress on a terminal: a few lines that are redrawn, and evaluations above them, to stay."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ludus.display.board import Board, sparkline

WIDEST_BAR, NARROWEST_BAR = 32, 8
GAP = 2
TIMES = "0:00, 0:00 left"


class Terminal:
    """A live display on stderr while its `with` block runs; nothing of it is left behind but what is said to stay."""

    def __init__(self, title: str, board: Board) -> None:
        self._title, self._board, self._start = title, board, time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        picture = Picture(title, board, self._start)
        self._live = Live(picture, console=self._console, refresh_per_second=5, transient=True)

    def __enter__(self) -> Terminal:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()

    def begin(self) -> None:
        """The title stays, above the display."""
        self._console.print(Text(self._title, "bold"), soft_wrap=True)
        self._live.update(Picture("", self._board, self._start))

    def see(self, row: dict[str, Any]) -> None:
        """Take in a row; evaluations stay."""
        evaluation = self._board.see(row, time.monotonic())
        if evaluation:
            self.say(f"  {evaluation}")

    def refresh(self) -> None:
        """It refreshes itself."""

    def say(self, text: str) -> None:
        """Above the display. Wrapped by the terminal alone, so that what is copied from it is whole."""
        self._console.print(Text(text), soft_wrap=True)


class Picture:
    """The title until it is said; phase, bar and times; the last metrics; the rewards so far."""

    def __init__(self, title: str, board: Board, start: float) -> None:
        self._title, self._board, self._start = title, board, start

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        board, width = self._board, options.max_width
        if self._title:
            yield Text(self._title, "bold")
        yield from self._top(width)
        yield from _figures(board.figures, width)
        if board.phase == "rl" and len(board.rewards) > 1:
            bars = sparkline(board.rewards, max(1, min(40, width - len("  reward "))))
            yield Text("  ").append("reward ", "dim").append(bars, "green")

    def _top(self, width: int) -> Iterator[RenderableType]:
        """One line where it fits; the bar gives way first, then times go to a line of their own.

        Room is kept for what grows while a phase runs, so that nothing moves.
        """
        board = self._board
        title, times = Text(f"  {board.title}", "bold"), Text(board.times(self._start, time.monotonic()), "dim")
        count = board.count.rjust(2 * len(str(board.total)) + 1) if board.total else ""
        room = width - title.cell_len - len(count) - 2 * GAP
        beside = room - max(times.cell_len, len(TIMES)) - GAP
        cells: list[RenderableType] = [title]
        if (free := beside if beside >= NARROWEST_BAR else room) >= NARROWEST_BAR:
            cells.append(
                ProgressBar(board.total or None, board.done, width=min(WIDEST_BAR, free), pulse=not board.total)
            )
        cells += [Text(count)] if count else []
        cells += [times] if beside >= NARROWEST_BAR else []
        top = Table.grid(padding=(0, GAP))
        top.add_row(*cells)
        yield top
        if beside < NARROWEST_BAR:
            yield Text("  ").append_text(times)


def _figures(figures: Mapping[str, str], width: int) -> Iterator[Text]:
    """Names and values, broken into lines between them only."""
    line = Text("  ")
    for name, value in figures.items():
        if line.cell_len > 2 and line.cell_len + len(name) + 1 + len(value) > width:
            yield line
            line = Text("  ")
        line.append(f"{name} ", "dim").append(f"{value}   ")
    if figures:
        yield line
