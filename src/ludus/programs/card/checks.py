"""Does the skill hang on the very tasks, or on their words? The same tasks in other words, and others of the same kind.

A model that has seen the tasks, or learnt their wording, scores less on the others. Both are differences with intervals;
neither proves anything about what a model was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ludus.errors import UsageError
from ludus.programs.card.answers import Answered, Evaluated, right_by_task
from ludus.programs.statistics import clustered_mean, paired_difference, t_quantile


@dataclass(frozen=True)
class Check:
    """How much less right another evaluation is: negative is worse."""

    name: str
    difference: float
    interval: tuple[float, float]
    num_tasks: int

    @property
    def verdict(self) -> str:
        """What it comes to, in a sentence."""
        low, high = self.interval
        if not math.isfinite(low):
            return "too few tasks to say"
        if high < 0:
            return "worse: the score hangs on more than the skill"
        return "better" if low > 0 else f"no difference shown; up to {max(-low, 0.0):.1%} worse is not ruled out"


def reworded(plain: Evaluated, other: Evaluated) -> Check:
    """The same tasks in other words, task by task. Raises UsageError where the two have no task in common."""
    _same_model(plain, other)
    paired = paired_difference(right_by_task(plain.answers), right_by_task(other.answers))
    return Check("the same tasks, reworded", paired.difference.mean, paired.interval, paired.difference.num_tasks)


def reseeded(plain: Evaluated, other: Evaluated) -> Check:
    """Other tasks from the same generators: a difference of two means, without tasks that both drew, as of easy ones there
    are few.

    Raises UsageError where no other tasks are left.
    """
    _same_model(plain, other)
    if _mix(plain.answers) != _mix(other.answers):
        raise UsageError(f"{other.run} has other skills or levels than {plain.run}: evaluate as many of the same")
    a, b = right_by_task(plain.answers), right_by_task(other.answers)
    one, two = (clustered_mean({task: own[task] for task in own.keys() - (a.keys() & b.keys())}) for own in (a, b))
    if not (one.num_tasks and two.num_tasks):
        raise UsageError(f"{other.run} has the tasks that {plain.run} has: evaluate with another seed (--arg seed=1)")
    se = math.hypot(one.se, two.se)
    degrees = min(one.num_tasks, two.num_tasks) - 1
    half = t_quantile(0.975, degrees) * se if degrees > 0 else math.nan
    difference = two.mean - one.mean
    return Check("other tasks, from another seed", difference, (difference - half, difference + half), two.num_tasks)


def _same_model(plain: Evaluated, other: Evaluated) -> None:
    if plain.model != other.model:
        raise UsageError(f"these are two models: {plain.run} is of {plain.model}, {other.run} of {other.model}")


def _mix(answers: Sequence[Answered]) -> set[tuple[str, float | None]]:
    return {(answer.group, answer.level) for answer in answers}
