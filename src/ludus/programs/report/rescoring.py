"""The section of a report that sets recorded rewards beside those of today's scorers, or of another version of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ludus.authoring.environment import Environment
from ludus.programs.blocking import run_anywhere
from ludus.programs.replay.rescore import rescore
from ludus.programs.replay.result import EnvironmentCheck, ScorerRow, short
from ludus.programs.replay.rewards import Judged, largest, table
from ludus.programs.replay.selection import Environments, Selection
from ludus.programs.report.samples import Bubble, bubbles_of
from ludus.store import RolloutIndex, RunFolder
from ludus.types import Rollout

DEMONSTRATIONS = "demonstration"
SHOWN = 10
"""Rollouts that are listed; the first few are shown whole."""
SHOWN_WHOLE = 3


@dataclass(frozen=True)
class Change:
    """A rollout whose reward changed, with every scorer that did: (name, then, now)."""

    rollout: Rollout
    now: float | None
    """Its reward; None where a scorer raised."""
    scorers: list[tuple[str, str, str]]
    bubbles: list[Bubble]


@dataclass(frozen=True)
class Rescoring:
    """Rewards then and now of a run's rollouts."""

    num_rollouts: int
    num_changed: int
    """Rollouts of which any score changed."""
    environments: list[EnvironmentCheck]
    rows: list[ScorerRow]
    """A scorer each, and the reward as the last one."""
    changes: list[Change]
    """The largest changes of the reward, first."""


def rescoring(run: Path, env: Environment | str | None = None) -> Rescoring:
    """Rescore what a model did in a run: all its rollouts but demonstrations, where there are others.

    Args:
        run: the run folder.
        env: another version of the environment; by default the one that the record names, as it is now.

    Raises:
        UsageError: no such environment, or no rollouts.
        RunFolderError: not a run folder, or a damaged one.
    """
    with RunFolder.open(run), RolloutIndex(run) as index:
        purposes = [summary.purpose for summary in index.purposes()]
        selection = Selection(index, purposes=[p for p in purposes if p != DEMONSTRATIONS] or purposes)
        environments = Environments(env)
        judged: list[Judged] = run_anywhere(lambda: rescore(selection, environments))
        rows, reward = table(judged)
        return Rescoring(
            num_rollouts=len(judged),
            num_changed=sum(any(score.differs for score in one.scores.values()) for one in judged),
            environments=environments.checks(),
            rows=rows + ([reward] if reward else []),
            changes=_changes(index, largest(judged, SHOWN)),
        )


def _changes(index: RolloutIndex, judged: Sequence[Judged]) -> list[Change]:
    changes = []
    for one in judged:
        rollout = index.get(one.rollout)
        scorers = [
            (name, short(score.then), score.error or short(score.now))
            for name, score in one.scores.items()
            if score.differs
        ]
        now = one.total.now if one.total else None
        changes.append(Change(rollout, now, scorers, bubbles_of(rollout.messages or rollout.task.messages())))
    return changes
