"""Progress on stderr: a live display on a terminal, a plain line every few seconds in a log.

Both show one `Board`, which reads the rows that programs report.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ludus.cli.output import decimals, note, plus_minus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EVERY_S = 5.0
EVERY_STEPS = 10
BARS = "▁▂▃▄▅▆▇█"
STAGES = {"sft": "SFT", "rl": "RL", "demonstrations": "demonstrations", "eval": "evaluation"}
FIGURES = {
    "rl": {"reward": "reward/mean", "success": "success", "entropy": "entropy", "turns": "turns/mean"},
    "sft": {"loss": "loss", "lr": "lr"},
}
"""What is shown of a step's metrics."""

See = Callable[[dict[str, Any]], None]


@dataclass
class Board:
    """Where a program is and how it does.

    Args:
        steps: how many steps each stage has.
    """

    steps: Mapping[str, int] = field(default_factory=dict)
    phase: str = "starting"
    done: int = 0
    total: int = 0
    figures: dict[str, str] = field(default_factory=dict)
    rewards: list[float] = field(default_factory=list)
    began: float = 0.0
    """When the phase began, and how much of it was done by then (of a resumed run)."""
    before: int = 0

    def see(self, row: Mapping[str, Any], now: float) -> str:
        """Take in a row. Returns an evaluation's line, or ""."""
        if "eval/name" in row:
            return evaluation_line(row)
        phase = str(row["phase"])
        if "total" in row:
            done, self.total, self.figures = row["done"], row["total"], {}
        else:
            earlier = self.steps.get("sft", 0) if phase == "rl" else 0
            done, self.total = row["step"] - earlier, self.steps.get(phase, 0)
            self.figures = step_figures(phase, row)
            if phase == "rl" and _known(row.get("reward/mean")):
                self.rewards.append(row["reward/mean"])
        if phase != self.phase:
            self.phase, self.began, self.before = phase, now, done - ("total" not in row)
        self.done = done
        return ""

    def left_s(self, now: float) -> float | None:
        """Seconds that the phase will take yet, if it goes on as it did."""
        passed = self.done - self.before
        return (now - self.began) / passed * (self.total - self.done) if passed > 1 and self.total else None

    @property
    def title(self) -> str:
        """The phase for people: "eval:after_sft:greedy" is "evaluation after sft, greedy"."""
        stage, _, rest = self.phase.partition(":")
        words = rest.replace("_", " ").replace(":", ", ")
        return f"{STAGES.get(stage, stage)} {words}".strip()

    def line(self) -> str:
        """All of it on one line."""
        of = f" {self.done}/{self.total}" if self.total else ""
        return "  ".join([f"{self.title}{of}", *(f"{name} {value}" for name, value in self.figures.items())])


def evaluation_line(row: Mapping[str, Any]) -> str:
    """A finished evaluation.

    >>> evaluation_line({"eval/name": "after_sft", "eval/mean": 0.5, "eval/se": 0.02, "eval/greedy_mean": 0.6})
    'eval after sft  0.500 ± 0.020  greedy 0.600'
    """
    parts = [f"eval {row['eval/name'].replace('_', ' ')}", plus_minus(row["eval/mean"], row["eval/se"])]
    if "eval/greedy_mean" in row:
        parts.append(f"greedy {decimals(row['eval/greedy_mean'])}")
    if row.get("eval/excluded"):
        parts.append(f"excluded {row['eval/excluded']}")
    return "  ".join(parts)


def step_figures(phase: str, row: Mapping[str, Any]) -> dict[str, str]:
    """The metrics of a step that are worth a look, as text."""
    figures = {
        name: f"{row[key]:.3g}" if name == "lr" else decimals(row[key])
        for name, key in FIGURES.get(phase, {}).items()
        if _known(row.get(key))
    }
    if row.get("time/sampling"):
        figures["tokens/s"] = f"{row['tokens/sampled'] / row['time/sampling']:,.0f}"
    if row.get("dead_batch"):
        figures["note"] = "every group's rewards are equal: nothing to learn from this batch"
    return figures


def sparkline(values: list[float], width: int = 40) -> str:
    """The last values as bars.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    shown = values[-width:]
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[math.ceil((value - low) * scale)] for value in shown)


@contextmanager
def watching(title: str, steps: Mapping[str, int]) -> Iterator[See]:
    """Show progress while the block runs; the block calls what it is given with each row.

    Args:
        title: what is running.
        steps: how many steps each stage has.
    """
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if not console.is_dumb_terminal:
            with _live(console, title, Board(steps)) as see:
                yield see
            return
    note(title)
    yield Lines(Board(steps)).see


class Lines:
    """Progress as plain lines: evaluations, the first step of a stage, and otherwise every few seconds or steps.

    Args:
        board: what is shown.
        clock: seconds.
        write: takes a line.
    """

    def __init__(
        self, board: Board, clock: Callable[[], float] = time.monotonic, write: Callable[[str], None] = note
    ) -> None:
        self._board, self._clock, self._write = board, clock, write
        self._start = self._last = clock()

    def see(self, row: dict[str, Any]) -> None:
        """Take in a row, and write a line if it is time."""
        board, now, phase = self._board, self._clock(), self._board.phase
        evaluation = board.see(row, now)
        stepped = "total" not in row and (
            board.phase != phase or board.done % EVERY_STEPS == 0 or board.done == board.total
        )
        due = evaluation or stepped or now - self._last >= EVERY_S
        if due:
            self._last = now
            minutes, seconds = divmod(int(now - self._start), 60)
            self._write(f"[{minutes:3d}:{seconds:02d}] {evaluation or board.line()}")


@contextmanager
def _live(console: Console, title: str, board: Board) -> Iterator[See]:
    from rich.live import Live

    start = time.monotonic()
    console.print(title, style="bold", markup=False)
    display = Live(get_renderable=lambda: _picture(board, start), console=console, refresh_per_second=5, transient=True)

    def see(row: dict[str, Any]) -> None:
        evaluation = board.see(row, time.monotonic())
        if evaluation:
            console.print(f"  {evaluation}", markup=False)

    with display:
        yield see


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


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
