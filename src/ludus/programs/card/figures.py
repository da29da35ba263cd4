"""The figures of a card: pure functions of answers.

The unit of every interval is the task, as its samples are not independent. Shares have Wilson's interval with as many
trials as tasks, which does not collapse where all are right or all wrong (Wilson 1927); where a task has several samples
it is a little too wide. Other means have Student's, and what is no mean has one from drawing the tasks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ludus.programs.card.answers import Answered, by_task, right_by_task
from ludus.programs.statistics import NUM_DRAWS, Figure, Interval, clustered_mean, drawn_again, wilson

Array = NDArray[Any]
EASY = 0.75
"""Share of a task's samples that are right from which it counts as easy."""
NUM_BINS = 10
NUM_BUDGETS = 12


@dataclass(frozen=True)
class Point:
    """A place on a curve: a mean with its 95 % interval, over so many tasks."""

    x: float
    mean: float
    interval: Interval
    num_tasks: int


def accuracy(answers: Sequence[Answered]) -> Figure:
    """Mean over tasks of the share of right answers."""
    found = clustered_mean(right_by_task(answers))
    return Figure(found.mean, wilson(found.mean, found.num_tasks), found.num_tasks)


def skill_curve(answers: Sequence[Answered]) -> list[Point]:
    """Share of right answers at each level of difficulty; [] where tasks have none."""
    levels = sorted({answer.level for answer in answers if answer.level is not None})
    return [_point(level, [answer for answer in answers if answer.level == level]) for level in levels]


def skill_curves(answers: Sequence[Answered]) -> dict[str, list[Point]]:
    """The same for each skill, by name."""
    names = dict.fromkeys(answer.group for answer in answers if answer.group)
    return {name: skill_curve([answer for answer in answers if answer.group == name]) for name in names}


def sureness(answers: Sequence[Answered]) -> tuple[str, list[tuple[Answered, float]]]:
    """Each answer with how sure the model was, and where that comes from: what it said itself, or, where it was not asked,
    the share of the task's other samples that agree with this one.

    Agreement with *others*: counting the answer itself would make the wildest guess one k-th sure.
    """
    stated = [(answer, answer.sure) for answer in answers if answer.sure is not None]
    if stated:
        return "stated", stated
    groups: dict[str, list[Answered]] = {}
    for answer in answers:
        groups.setdefault(answer.task, []).append(answer)
    return "agreement", [
        (answer, (sum(other.answer == answer.answer for other in group) - 1) / (len(group) - 1))
        for group in groups.values()
        if len(group) > 1
        for answer in group
    ]


def calibration_curve(sure: Sequence[tuple[Answered, float]]) -> list[Point]:
    """Share of right answers by how sure the model was, in ten bins of equal width; x is the bin's mean."""
    points = []
    for place in range(NUM_BINS):
        own = [(answer, value) for answer, value in sure if min(int(value * NUM_BINS), NUM_BINS - 1) == place]
        if own:
            points.append(_point(float(np.mean([value for _, value in own])), [answer for answer, _ in own]))
    return points


def calibration_error(sure: Sequence[tuple[Answered, float]]) -> Figure:
    """Expected calibration error: the mean over answers of how far their bin's sureness and share of right answers lie
    apart (Guo et al. 2017, arXiv:1706.04599, equation 3).

    It is above 0 by chance alone, and more so when tasks are drawn again, so that percentiles never cover a model that is
    calibrated. Its interval is the basic one (Davison and Hinkley 1997, equation 5.6), which turns that round; it begins
    at 0 where tasks whose gaps have random signs have as large an error in one of twenty draws.
    """

    places = {task: place for place, task in enumerate(dict.fromkeys(answer.task for answer, _ in sure))}
    gaps, counts = np.zeros((len(places), NUM_BINS)), np.zeros(len(places))
    for answer, value in sure:
        gaps[places[answer.task], min(int(value * NUM_BINS), NUM_BINS - 1)] += value - answer.right
        counts[places[answer.task]] += 1
    found = drawn_again(len(places), lambda own: float(np.abs(gaps[own].sum(axis=0)).sum() / counts[own].sum()))
    if found.num_tasks < 2:
        return found
    low, high = (2 * found.value - end for end in reversed(found.interval))
    rng = np.random.default_rng(0)
    signs = (rng.choice((-1.0, 1.0), size=len(places)) for _ in range(NUM_DRAWS))
    by_chance = np.quantile([np.abs(own @ gaps).sum() / counts.sum() for own in signs], 0.95)
    low = 0.0 if found.value <= by_chance else max(0.0, low)
    return Figure(found.value, (low, max(high, found.value)), found.num_tasks)


def brier_score(sure: Sequence[tuple[Answered, float]]) -> Figure:
    """Mean squared distance between sureness and outcome; 0.25 is what always saying 50 % gets."""
    errors: dict[str, list[float]] = {}
    for answer, value in sure:
        errors.setdefault(answer.task, []).append((value - answer.right) ** 2)
    return _mean(errors)


def budget_curve(answers: Sequence[Answered]) -> list[Point]:
    """What the share of right answers would be if replies were cut off after x tokens and a cut one were wrong.

    So the model as it is, not one that was told its budget: that one is measured with `budget:ENV`.
    """
    lengths = sorted(answer.tokens for answer in answers)
    at = sorted({int(np.ceil(np.quantile(lengths, q))) for q in np.linspace(0, 1, NUM_BUDGETS)}) if lengths else []
    return [_point_within(answers, limit) for limit in at]


def tokens_by_level(answers: Sequence[Answered]) -> list[Point]:
    """Mean tokens at each level of difficulty."""
    points = []
    for level in sorted({answer.level for answer in answers if answer.level is not None}):
        found = _mean(by_task([a for a in answers if a.level == level], lambda answer: float(answer.tokens)))
        points.append(Point(level, found.value, found.interval, found.num_tasks))
    return points


def overthinking(answers: Sequence[Answered]) -> Figure:
    """Share of the tokens on easy tasks that were not needed: what replies have beyond the task's shortest right answer.

    A wrong reply that is shorter has wasted nothing. Easy is what at least three of four samples get right; so it is
    measured, not declared, and needs several samples.
    """
    groups: dict[str, list[Answered]] = {}
    for answer in answers:
        groups.setdefault(answer.task, []).append(answer)
    wasted = {}
    for task, group in groups.items():
        right = [answer.tokens for answer in group if answer.right]
        total = sum(answer.tokens for answer in group)
        if len(group) > 1 and len(right) >= EASY * len(group) and total > 0:
            wasted[task] = [sum(max(0, answer.tokens - min(right)) for answer in group) / total]
    return _mean(wasted)


def effort(answers: Sequence[Answered]) -> Figure:
    """Rank correlation between a task's measured difficulty (its share of wrong answers) and the tokens spent on it: 1
    where harder tasks get more, 0 where effort has nothing to do with it."""

    wrong = by_task(answers, lambda answer: float(not answer.right))
    tokens = by_task(answers, lambda answer: float(answer.tokens))
    wrong_T, tokens_T = (np.array([np.mean(values[task]) for task in wrong]) for values in (wrong, tokens))
    return drawn_again(len(wrong), lambda own: _rank_correlation(wrong_T[own], tokens_T[own]))


def share(answers: Sequence[Answered], holds: Callable[[Answered], bool]) -> Figure:
    """Mean over tasks of the share of answers of which something holds."""
    found = _shares(by_task(answers, lambda answer: float(holds(answer))), 0.0)
    return Figure(found.mean, found.interval, found.num_tasks)


def rate(answers: Sequence[Answered], holds: Callable[[Answered], float]) -> Figure:
    """Mean over tasks of a number of each answer."""
    return _mean(by_task(answers, holds))


def _point(x: float, answers: Sequence[Answered]) -> Point:
    return _shares(right_by_task(answers), x)


def _point_within(answers: Sequence[Answered], limit: int) -> Point:
    return _shares(by_task(answers, lambda answer: float(answer.right and answer.tokens <= limit)), limit)


def _shares(values: dict[str, list[float]], x: float) -> Point:
    found = clustered_mean(values)
    return Point(x, found.mean, wilson(found.mean, found.num_tasks), found.num_tasks)


def _mean(values: dict[str, list[float]]) -> Figure:
    found = clustered_mean(values)
    return Figure(found.mean, found.interval(), found.num_tasks)


def _rank_correlation(x_T: Array, y_T: Array) -> float:
    """Spearman's, in [-1, 1]; NaN where one of the two is the same everywhere."""
    if np.ptp(x_T) == 0 or np.ptp(y_T) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(x_T), _ranks(y_T))[0, 1])


def _ranks(values_T: Array) -> Array:
    """Ranks from 1 on; equal values share the mean of theirs."""
    _, places, counts = np.unique(values_T, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
