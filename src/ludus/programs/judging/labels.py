"""Rollouts with the truth about them: from people, or from a run whose scorers know it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from random import Random

from ludus.errors import UnknownName, UsageError
from ludus.judging.labelled import GOOD, Labelled
from ludus.programs.labelling import labelled
from ludus.store import IndexRow, RolloutIndex, RunFolder

REWARD = "reward"
"""Stands for a rollout's whole reward."""
PEOPLE = "labels"
"""Stands for what people said of a run."""


def from_run(
    run: str | Path, truth: str = REWARD, *, success_reward: float = 1.0, limit: int | None = None
) -> list[Labelled]:
    """The rollouts of a run that were scored, with what one of its scorers said of them.

    Args:
        run: a run folder.
        truth: the scorer's name; "reward" is the whole reward.
        success_reward: from which that counts as good; of a single scorer, half of 1 does.
        limit: so many, drawn by groups from all that the run is for: its first ones are of a model that knows nothing yet.

    Raises:
        UnknownName: no such scorer, with the nearest one.
        UsageError: nothing was scored.
        RunFolderError: not a run folder, or a damaged one.
    """
    path = Path(run)
    found, scorers = list[Labelled](), set[str]()
    with RunFolder.open(path), RolloutIndex(path) as index:
        rows = [row for row in index.query(last_attempts=True) if not row.excluded]
        for rollout in (index.get(row.id) for row in (rows if limit is None else _drawn(rows, limit))):
            values = {REWARD: rollout.reward, **rollout.metrics}
            scorers |= values.keys()
            if rollout.failure is None and truth in values:
                least = success_reward if truth == REWARD else GOOD
                found.append(Labelled(rollout, values[truth], values[truth] >= least))
    if scorers and truth not in scorers:
        raise UnknownName("scorer", truth, scorers)
    if not found:
        raise UsageError(f"{path} has no rollouts that were scored")
    return found


def _drawn(rows: Iterable[IndexRow], num: int) -> Iterable[IndexRow]:
    """So many of them, the same ones each time, group after group: judges that compare need a group whole."""
    groups: dict[str, list[IndexRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    drawn = list(groups.values())
    Random(0).shuffle(drawn)
    return islice(chain.from_iterable(drawn), num)


def from_people(run: str | Path, limit: int | None = None) -> list[Labelled]:
    """The rollouts of a run that people, or the signals of a product, found good or bad (`ludus label`).

    Raises:
        UsageError: nothing is labelled.
        RunFolderError: not a run folder, or a damaged one.
    """
    found = [Labelled(rollout, label.reward, label.verdict == "good") for rollout, label in labelled(run)]
    if not found:
        raise UsageError(f"{run} has no labels yet: ludus label {run}")
    return found[:limit]
