"""`Board`: what the rows that programs report amount to: the phase, how far it is, the last figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ludus.display.numbers import clock, decimals, plus_minus

BARS = "▁▂▃▄▅▆▇█"
STAGES = {"sft": "SFT", "rl": "RL", "demonstrations": "demonstrations", "eval": "evaluation"}
FIGURES = {
    "rl": {"reward": "reward/mean", "success": "success", "entropy": "entropy", "turns": "turns/mean"},
    "sft": {"loss": "loss", "lr": "lr"},
}
"""What is shown of a step's metrics."""


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
    began: dict[str, tuple[float, int]] = field(default_factory=dict)
    """When each phase began, and how much of it was done by then (of a resumed run)."""

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
        self.began.setdefault(phase, (now, done))
        self.phase, self.done = phase, done
        return ""

    def left_s(self, now: float) -> float | None:
        """Seconds that the phase will take yet, if it goes on as it did; None where nothing says so."""
        began, before = self.began.get(self.phase, (now, self.done))
        passed = self.done - before
        return (now - began) / passed * (self.total - self.done) if passed > 0 and self.done < self.total else None

    def times(self, start: float, now: float) -> str:
        """How long it has run, and how long the phase will take yet if that is known."""
        left = self.left_s(now)
        return clock(now - start) + (f", {clock(left)} left" if left is not None else "")

    def end(self, word: str) -> None:
        """Nothing more will come."""
        self.phase, self.done, self.total, self.figures = word, 0, 0, {}

    @property
    def count(self) -> str:
        """How far the phase is, as in "3/10"."""
        return f"{self.done}/{self.total}" if self.total else ""

    @property
    def title(self) -> str:
        """The phase for people: "eval:after_sft:greedy@guess" is "evaluation after sft, greedy, in guess"."""
        phase, _, member = self.phase.partition("@")
        stage, _, rest = phase.partition(":")
        words = rest.replace("_", " ").replace(":", ", ")
        return f"{STAGES.get(stage, stage)} {words}".strip() + (f", in {member}" if member else "")

    def line(self) -> str:
        """All of it on one line."""
        return "  ".join(
            [f"{self.title} {self.count}".strip(), *(f"{name} {value}" for name, value in self.figures.items())]
        )


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
    for key, mean in row.items():
        if key.startswith("env/") and key.endswith("/eval/mean"):
            parts.append(f"{key.split('/')[1]} {decimals(mean)}")
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
    top = len(BARS) - 1
    scale = top / (high - low) if high > low else 0.0
    return "".join(BARS[min(top, math.ceil((value - low) * scale))] for value in shown)  # rounding may pass the top


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
