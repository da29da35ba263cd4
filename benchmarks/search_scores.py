"""What recorded evaluations of a search environment say, task by task."""

from __future__ import annotations

from pathlib import Path

from ludus.store import RolloutIndex
from ludus.types import Rollout

Scores = dict[str, list[float]]


def scores(run: Path, purpose: str) -> Scores:
    """Whether the answer was right, by answerable task."""
    found: Scores = {}
    with RolloutIndex(run) as index:
        for row in index.query(purpose=purpose, last_attempts=True):
            rollout: Rollout = index.get(row.id)
            if not rollout.excluded and "right" in rollout.metrics:
                found.setdefault(rollout.task.id, []).append(rollout.metrics["right"])
    return found
