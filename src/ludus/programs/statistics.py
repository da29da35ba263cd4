"""The statistics of evaluations: means with errors, pass@k, bounds, intervals and paired differences.

Everything works on scores grouped by task, because the samples of one task are not independent: the task is the unit
(clustered standard errors, Miller 2024, arXiv:2411.00640). Plain Python and NumPy, pure functions; intervals use
Student's t, whose quantile is computed here exactly, so that SciPy is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ludus.errors import UsageError

Scores = Mapping[str, Sequence[float]]
"""Scores of the samples of each task, by task id; tasks without samples are left out of everything."""
Interval = tuple[float, float]
NUM_DRAWS = 1_000
Z95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and its standard error; NaN where it can't be estimated (no task; one task)."""

    mean: float
    se: float
    num_tasks: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval mean ± t·se with num_tasks - 1 degrees of freedom."""
        half = t_quantile(0.5 + confidence / 2, self.num_tasks - 1) * self.se if self.num_tasks > 1 else math.nan
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; NaN where there is none."""

    value: float
    interval: Interval
    num_tasks: int


@dataclass(frozen=True)
class PairedDifference:
    """How much better B is than A on the same tasks."""

    a: Estimate
    b: Estimate
    difference: Estimate
    """Of B - A, task by task: what the tasks have in common cancels out."""
    interval: tuple[float, float]
    """95 %, by Student's t."""
    gained: tuple[str, ...]
    """Ids of tasks where B scored higher, and lost: lower."""
    lost: tuple[str, ...]
    mcnemar_p: float | None
    """Exact two-sided p-value; None unless every task has one sample and every score is 0 or 1."""


def clustered_mean(scores: Scores) -> Estimate:
    """Mean over tasks of each task's mean, with the standard error over tasks.

    With equally many samples a task this is Miller's clustered standard error (equation 4), with the correction
    n/(n - 1) for few clusters.
    """
    return _over_tasks([float(np.mean(values)) for values in scores.values() if len(values)])


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Probability that at least one of k samples is correct: 1 - C(n-c, k) / C(n, k), unbiased.

    Source: Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    return 1.0 - pass_hat_k(num_samples, num_samples - num_correct, k)


def pass_hat_k(num_samples: int, num_correct: int, k: int) -> float:
    """Probability that all of k samples are correct, pass^k: C(c, k) / C(n, k), unbiased.

    Source: Yao et al. 2024, arXiv:2406.12045.
    """
    if not 1 <= k <= num_samples:
        raise UsageError(f"expected 1 <= k <= the number of samples ({num_samples}), got k = {k}")
    return math.comb(num_correct, k) / math.comb(num_samples, k)


def mean_pass_at_k(correct: Mapping[str, Sequence[bool]], k: int) -> Estimate:
    """pass@k averaged over the tasks that have at least k samples; `num_tasks` says how many those are."""
    return _over_tasks([pass_at_k(len(values), sum(values), k) for values in correct.values() if len(values) >= k])


def mean_pass_hat_k(correct: Mapping[str, Sequence[bool]], k: int) -> Estimate:
    """pass^k averaged over the tasks that have at least k samples; `num_tasks` says how many those are."""
    return _over_tasks([pass_hat_k(len(values), sum(values), k) for values in correct.values() if len(values) >= k])


def exclusion_bounds(
    scores: Scores, num_excluded: Mapping[str, int], *, worst: float = 0.0, best: float = 1.0
) -> tuple[float, float]:
    """The mean over tasks if every excluded rollout had scored `worst`, and if it had scored `best`.

    Args:
        scores: of the rollouts that were not excluded.
        num_excluded: excluded rollouts by task id; a task may have no other.
        worst, best: the range of a score.
    """
    tasks = scores.keys() | {task for task, count in num_excluded.items() if count}

    def mean(value: float) -> float:
        filled = {task: [*scores.get(task, ()), *[value] * num_excluded.get(task, 0)] for task in tasks}
        return clustered_mean(filled).mean

    return mean(worst), mean(best)


def paired_difference(a: Scores, b: Scores) -> PairedDifference:
    """Compare two evaluations on the tasks that both have.

    Raises:
        UsageError: they have no task in common.
    """
    tasks = [task for task, values in a.items() if len(values) and len(b.get(task, ()))]
    if not tasks:
        raise UsageError("the two evaluations have no task in common, so they can't be compared task by task")
    a, b = {task: a[task] for task in tasks}, {task: b[task] for task in tasks}
    differences = {task: float(np.mean(b[task]) - np.mean(a[task])) for task in tasks}
    difference = _over_tasks(list(differences.values()))
    gained = tuple(task for task, value in differences.items() if value > 0)
    lost = tuple(task for task, value in differences.items() if value < 0)
    return PairedDifference(
        a=clustered_mean(a),
        b=clustered_mean(b),
        difference=difference,
        interval=difference.interval(),
        gained=gained,
        lost=lost,
        mcnemar_p=mcnemar_exact(len(gained), len(lost)) if _single_binary(a) and _single_binary(b) else None,
    )


def mcnemar_exact(num_gained: int, num_lost: int) -> float:
    """Two-sided p-value of McNemar's test: the tasks that changed are coin tosses if nothing changed."""
    changed, fewer = num_gained + num_lost, min(num_gained, num_lost)
    outcomes: int = 2**changed
    return min(1.0, 2 * sum(math.comb(changed, i) for i in range(fewer + 1)) / outcomes)


def quantiles(values: Iterable[float], at: Sequence[float] = (0.5, 0.9, 0.99)) -> dict[str, float]:
    """Quantiles by name, linear between samples: {"p50": ..., "p90": ..., "p99": ...}; {} without values."""
    data = np.asarray(list(values), dtype=np.float64)
    return {f"p{100 * q:g}": float(np.quantile(data, q)) for q in at} if data.size else {}


def wilson(share: float, trials: int) -> Interval:
    """Wilson's 95 % interval of a share of so many trials, which does not collapse at 0 and 1 (Wilson 1927).

    >>> tuple(round(end, 3) for end in wilson(1.0, 10)), tuple(round(end, 3) for end in wilson(0.5, 100))
    ((0.722, 1.0), (0.404, 0.596))
    """
    if trials == 0:
        return math.nan, math.nan
    z2 = Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def drawn_again(num_tasks: int, figure: Callable[[NDArray[Any]], float]) -> Figure:
    """A figure of tasks, given their places, with the interval that it has when as many are drawn again, with replacement,
    from the same seed each time (the bootstrap)."""
    if num_tasks == 0:
        return Figure(math.nan, (math.nan, math.nan), 0)
    rng = np.random.default_rng(0)
    drawn = [figure(rng.integers(num_tasks, size=num_tasks)) for _ in range(NUM_DRAWS)]
    finite = [value for value in drawn if math.isfinite(value)]
    low, high = np.quantile(finite, [0.025, 0.975]) if finite and num_tasks > 1 else (math.nan, math.nan)
    return Figure(figure(np.arange(num_tasks)), (float(low), float(high)), num_tasks)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution for whole degrees of freedom >= 1, by bisection of its distribution."""
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while _t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _t_cdf(t: float, degrees: int) -> float:
    """P(T <= t), t >= 0: the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(degrees))
    cos2 = math.cos(angle) ** 2
    odd = degrees % 2
    steps = np.arange(1, max(0, (degrees - 2 - odd) // 2) + 1)
    factors = (2 * steps / (2 * steps + 1) if odd else (2 * steps - 1) / (2 * steps)) * cos2
    series = 1.0 + float(np.cumprod(factors).sum())
    if not odd:
        return 0.5 + math.sin(angle) * series / 2
    tail = math.sin(angle) * math.cos(angle) * series if degrees > 1 else 0.0
    return 0.5 + (angle + tail) / math.pi


def _over_tasks(values: Sequence[float]) -> Estimate:
    count = len(values)
    mean = float(np.mean(values)) if count else math.nan
    se = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return Estimate(mean, se, count)


def _single_binary(scores: Scores) -> bool:
    return all(len(values) == 1 and values[0] in (0, 1) for values in scores.values())
