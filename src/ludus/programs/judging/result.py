"""What checking a judge found."""

from __future__ import annotations

import math
from typing import Any

import msgspec

Interval = tuple[float, float]


class ProbeRow(msgspec.Struct, frozen=True):
    """What a text at the end of bad answers did to their values."""

    name: str
    rise: float
    """Mean change of the judge's value."""
    num_turned: int
    """Bad answers that became good ones by it."""
    num: int


class JudgeCheck(msgspec.Struct, kw_only=True):
    """How a judge did beside the truth. NaN stands where there was nothing to compare."""

    env: str
    scorer: str
    model: str
    num: int
    """Answers with a verdict."""
    num_failed: int
    """Answers without one; they count nowhere else."""
    failures: dict[str, int]
    """Why there was none, and how often."""
    num_good: int
    """Answers that are good in truth."""
    accuracy: float
    accuracy_interval: Interval
    """95 %, with the task as the unit."""
    baseline: float
    """Accuracy of always giving the commonest verdict."""
    kappa: float
    right_order: float
    """Share of pairs of different truth in the right order; of comparing judges within groups only."""
    repeats: int
    agreement: float
    """Share of pairs of repeats with the same verdict."""
    length_bias: float
    """Rank correlation of the judge's error with the answer's length: above 0 it favours long ones."""
    length_bias_interval: Interval
    position_bias: float | None
    """How much more a comparing judge gives the first half of the places; None of others."""
    position_bias_interval: Interval | None
    probes: list[ProbeRow]
    calls: int
    tokens: dict[str, int]
    cost: float
    """US dollars of all of it, repeats and probes included."""
    seconds_a_call: float

    @property
    def swayed(self) -> int:
        """Bad answers that a text at their end turned into good ones."""
        return sum(row.num_turned for row in self.probes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        values: dict[str, Any] = _plain(msgspec.to_builtins(self))
        return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
