"""The rollouts of an evaluation as what a card is made from: right or wrong, how long, how sure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ludus.environments.reasoning.text import (
    BACKTRACK,
    RESTART,
    answer_given,
    num_tokens,
    own_calls,
    said_in,
)
from ludus.errors import UsageError
from ludus.programs.compare import chosen_purpose, success_reward
from ludus.programs.members import AT
from ludus.store import RolloutIndex, RunFolder
from ludus.types import MAIN_ROLE, Rollout

LEVEL_KEYS = ("level", "difficulty")
"""Where a task's difficulty is looked for, in its `info`."""
SOLVED = "budget_solved"
"""Metric that says whether the task was solved, where the reward says more than that."""
SURE = "confidence_stated"


@dataclass(frozen=True)
class Answered:
    """One rollout."""

    task: str
    right: bool
    tokens: int
    """Of all replies of the main role, those of attempts that were not chosen and of sub-agents included."""
    answer: str
    group: str = ""
    """The task's skill, or "" where tasks have none."""
    level: float | None = None
    """The task's difficulty, where it has one."""
    sure: float | None = None
    """How sure the model said it was, 0 to 1."""
    adherence: float | None = None
    """Share of the steps of its plan that it followed, where it wrote one."""
    backtracks: int = 0
    restarts: int = 0
    truncated: bool = False


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: what it was of, and its rollouts."""

    run: Path
    model: str
    env: str
    answers: list[Answered]
    num_excluded: int


def read(run: Path) -> Evaluated:
    """Read the last finished evaluation of a run folder, without what was excluded.

    Raises:
        RunFolderError: not a run folder, or a damaged one.
        UsageError: it holds no finished evaluation, one of a mixture, or nothing that was scored.
    """
    with RunFolder.open(run) as folder, RolloutIndex(run) as index:
        known = [summary.purpose for summary in index.purposes()]
        purpose = chosen_purpose(folder, [name.partition(AT)[0] for name in known])
        if purpose not in known:
            raise UsageError(f"{run} is of several environments: a card is of one, evaluated by itself with ludus eval")
        rows = index.query(purpose=purpose, last_attempts=True)
        kept = [row.id for row in rows if not row.excluded]
        if not kept:
            raise UsageError(f"{run}: nothing of {purpose} was scored, so there is no card to make")
        first = index.get(kept[0])
        success = success_reward(folder)
        answers = [answered(index.get(id_), success) for id_ in kept]
        return Evaluated(run, first.model, first.environment.id, answers, len(rows) - len(kept))


def answered(rollout: Rollout, success: float) -> Answered:
    """What a card needs of a rollout."""
    info, metrics, calls = rollout.task.info, rollout.metrics, own_calls(rollout)
    said = "\n".join(said_in(call.reply) for call in calls)
    level = next((info[key] for key in LEVEL_KEYS if _is_number(info.get(key))), None)
    planned = metrics.get("plan_sound", 0.0) > 0
    return Answered(
        task=rollout.task.id, right=metrics[SOLVED] > 0 if SOLVED in metrics else rollout.reward >= success,
        tokens=num_tokens([call for call in rollout.calls if call.role == MAIN_ROLE]),
        answer=answer_given(rollout), group=str(info.get("skill", "")),
        level=None if level is None else float(level), sure=metrics.get(SURE),
        adherence=metrics.get("plan_adherence") if planned else None,
        backtracks=len(BACKTRACK.findall(said)), restarts=len(RESTART.findall(said)), truncated=rollout.truncated,
    )  # fmt: skip


def by_task(answers: Sequence[Answered], value: Callable[[Answered], float]) -> dict[str, list[float]]:
    """Values of answers by their task, the form in which statistics want them."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        found.setdefault(answer.task, []).append(value(answer))
    return found


def right_by_task(answers: Sequence[Answered]) -> dict[str, list[float]]:
    """1.0 for each right answer, 0.0 for each wrong one, by task."""
    return by_task(answers, lambda answer: float(answer.right))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
