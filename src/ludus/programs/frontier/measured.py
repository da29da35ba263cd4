"""`measure`: what one model came to, with 95 % intervals. Pure functions of its rollouts and its price.

The unit of every interval is the task. Accuracy has Wilson's interval with as many trials as tasks; costs and times,
which are skewed, have one from drawing the tasks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ludus.programs.frontier.trials import Evaluated, Trial
from ludus.programs.prices import Price
from ludus.programs.statistics import Figure, clustered_mean, drawn_again, wilson

NOTHING = Figure(math.nan, (math.nan, math.nan), 0)
OWN_MACHINE, NO_PRICE, NO_TOKENS = "own machine, at 0", "no price", "counts no tokens"
NOTHING_SCORED, CACHED = "nothing was scored", "answered from a cache"


@dataclass(frozen=True)
class Times:
    """Seconds: the median and the 95th percentile over rollouts."""

    p50: Figure = NOTHING
    p95: Figure = NOTHING


@dataclass(frozen=True)
class Measured:
    """One model in one environment. Figures that are not known are NaN."""

    model: str
    run: Path
    num_tasks: int
    num_rollouts: int
    num_excluded: int
    num_retried: int
    """Rollouts that were begun anew; their costs and times count nowhere here."""
    accuracy: Figure
    """Share of rollouts that reach the environment's success."""
    reward: Figure
    cost: Figure
    """Dollars a task of the model itself."""
    priced: str
    """The price, or why there is no cost."""
    other_cost: float
    """Dollars a task of other roles, such as a judge."""
    tokens: tuple[float, float]
    """Prompt and completion tokens a task."""
    answer: Times
    """To answer: from the model's first call to the end of its last, without waiting."""
    rollout: Times
    """Of the whole rollout, without waiting."""
    waited_s: float
    """What a rollout waited for rate limits and attempts that failed, on average."""
    num_cached: int
    """Rollouts with replies out of a cache, which count in neither cost nor time."""
    concurrency: int
    stopped: str


def measure(found: Evaluated, price: Price | None) -> Measured:
    """The figures of an evaluation.

    Args:
        found: its rollouts.
        price: of the model; None is the one that was recorded.
    """
    fresh = [trial for trial in found.trials if not trial.cached]
    costs, priced = _costs(found, fresh, price)
    solved = clustered_mean(_by_task(found.trials, lambda trial: float(trial.right)))
    reward = clustered_mean(_by_task(found.trials, lambda trial: trial.reward))
    answers = [(trial.task, trial.answer_s) for trial in fresh if trial.answer_s is not None]
    return Measured(
        model=found.model, run=found.run, num_tasks=solved.num_tasks, num_rollouts=len(found.trials),
        num_excluded=found.num_excluded, num_retried=found.num_retried,
        accuracy=Figure(solved.mean, wilson(solved.mean, solved.num_tasks), solved.num_tasks),
        reward=Figure(reward.mean, reward.interval(), reward.num_tasks),
        cost=mean_figure(costs), priced=priced, other_cost=_mean(trial.other_cost for trial in found.trials),
        tokens=(
            _mean(trial.usage.prompt_tokens for trial in found.trials),
            _mean(trial.usage.completion_tokens for trial in found.trials),
        ),
        answer=_times(answers), rollout=_times([(trial.task, trial.seconds) for trial in fresh]),
        waited_s=_mean(trial.waited_s for trial in found.trials), num_cached=len(found.trials) - len(fresh),
        concurrency=found.concurrency, stopped=found.stopped,
    )  # fmt: skip


def _costs(found: Evaluated, trials: Sequence[Trial], price: Price | None) -> tuple[list[tuple[str, float]], str]:
    """Dollars of each rollout, with its task, and how they are known; [] where they are not."""
    if not found.trials:
        return [], NOTHING_SCORED
    if not trials:
        return [], CACHED
    if price is not None and price.hour:
        hours = busy_s(found.trials) / 3600
        share = hours * price.hour / (sum(trial.seconds for trial in found.trials) or 1.0)
        return [(trial.task, trial.seconds * share) for trial in trials], f"{price}, {hours:.3g} h"
    if not any(trial.usage.prompt_tokens + trial.usage.completion_tokens for trial in trials):
        return [], NO_TOKENS
    if price is not None:
        used = [(trial.task, trial.usage) for trial in trials]
        dollars = [(t, u.prompt_tokens * price.prompt + u.completion_tokens * price.completion) for t, u in used]
        return [(task, cost / 1e6) for task, cost in dollars], str(price)
    recorded = [(trial.task, trial.usage.cost) for trial in trials]
    if found.price is not None:
        return recorded, str(Price(*found.price))
    if any(cost for _, cost in recorded):
        return recorded, "as recorded"
    return (recorded, OWN_MACHINE) if any(trial.local for trial in trials) else ([], NO_PRICE)


def busy_s(trials: Iterable[Trial]) -> float:
    """Seconds in which at least one rollout ran: what a machine is paid for, however many it ran at once."""
    total, end = 0.0, -math.inf
    for began, ended in sorted(trial.span for trial in trials):
        total += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return total


def mean_figure(values: Sequence[tuple[str, float]]) -> Figure:
    """The mean over tasks of values, each with its task."""
    tasks: dict[str, list[float]] = {}
    for task, value in values:
        tasks.setdefault(task, []).append(value)
    means_B = np.array([np.mean(own) for own in tasks.values()])
    return _told(drawn_again(len(tasks), lambda own: float(means_B[own].mean())))


def quantile_figure(values: Sequence[tuple[str, float]], quantile: float) -> Figure:
    """A quantile of values, each with its task: the least one that so many are not above."""
    places = {task: place for place, task in enumerate(dict.fromkeys(task for task, _ in values))}
    in_order = sorted((value, places[task]) for task, value in values)
    values_N, places_N = np.array([v for v, _ in in_order]), np.array([p for _, p in in_order], dtype=np.int64)

    def of(own: np.ndarray) -> float:
        reached_N = np.cumsum(np.bincount(own, minlength=len(places))[places_N])
        return float(values_N[np.searchsorted(reached_N, quantile * reached_N[-1])])

    return _told(drawn_again(len(places), of))


def _times(values: Sequence[tuple[str, float]]) -> Times:
    return Times(quantile_figure(values, 0.5), quantile_figure(values, 0.95))


def _told(figure: Figure) -> Figure:
    """Without the interval of a single task, which would be no wider than a point."""
    return figure if figure.num_tasks > 1 else Figure(figure.value, (math.nan, math.nan), figure.num_tasks)


def _by_task(trials: Iterable[Trial], value: Callable[[Trial], float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for trial in trials:
        found.setdefault(trial.task, []).append(value(trial))
    return found


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
