"""What a judge's values say beside the truth: accuracy, agreement, order, biases. Pure functions of arrays [N]."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ludus.programs.statistics import Estimate, clustered_mean

Floats = NDArray[np.float64]
MOST_PAIRED = 2000
"""Answers whose pairs are all looked at; of more, so many spread evenly."""


def accuracy(judged_N: Sequence[bool], true_N: Sequence[bool], tasks_N: Sequence[str]) -> Estimate:
    """Share of verdicts that are right, with the task as the unit of the error."""
    return by_task([float(a == b) for a, b in zip(judged_N, true_N, strict=True)], tasks_N)


def by_task(values_N: Iterable[float], tasks_N: Sequence[str]) -> Estimate:
    """The mean over tasks of each task's mean."""
    values: dict[str, list[float]] = {}
    for task, value in zip(tasks_N, values_N, strict=True):
        values.setdefault(task, []).append(value)
    return clustered_mean(values)


def kappa(judged_N: Sequence[bool], true_N: Sequence[bool]) -> float:
    """Agreement beyond chance, (p - e) / (1 - e) (Cohen 1960); NaN where chance alone would always agree."""
    judged, true = np.array(judged_N, bool), np.array(true_N, bool)
    observed = float(np.mean(judged == true))
    expected = float(judged.mean() * true.mean() + (1 - judged.mean()) * (1 - true.mean()))
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def right_order(values_N: Sequence[float], truths_N: Sequence[float], groups_N: Sequence[str] | None = None) -> float:
    """Share of pairs of different truth that the judge puts in the right order; ties count half. NaN without a pair.

    Over all pairs this is the area under the ROC curve, where truth is good or bad.

    Args:
        groups_N: only pairs within a group count, where values of different groups can't be compared.
    """
    step = max(1, -(-len(values_N) // MOST_PAIRED)) if groups_N is None else 1
    values, truths = np.array(values_N, float)[::step], np.array(truths_N, float)[::step]
    if groups_N is None:
        return _ratio(*_ordered(values, truths))
    names = np.array(groups_N)
    counts = [_ordered(values[names == name], truths[names == name]) for name in dict.fromkeys(groups_N)]
    return _ratio(sum(right for right, _ in counts), sum(pairs for _, pairs in counts))


def agreement(repeats_NR: Sequence[Sequence[bool]]) -> float:
    """Share of pairs of repeats that give the same verdict; NaN where nothing was repeated."""
    alike = pairs = 0.0
    for verdicts in repeats_NR:
        good, count = sum(verdicts), len(verdicts)
        pairs += math.comb(count, 2)
        alike += math.comb(good, 2) + math.comb(count - good, 2)
    return _ratio(alike, pairs)


def length_bias(values_N: Sequence[float], truths_N: Sequence[float], lengths_N: Sequence[int]) -> Estimate:
    """Rank correlation of the judge's error (its value less the truth) with the length of the answer.

    Its standard error is that of Fisher's transformation, (1 - r²) / sqrt(N - 3); NaN where one of them does not vary.
    """
    errors, lengths = _ranks(np.array(values_N, float) - np.array(truths_N, float)), _ranks(np.array(lengths_N, float))
    count = len(errors)
    if count < 4 or np.ptp(errors) == 0 or np.ptp(lengths) == 0:
        return Estimate(math.nan, math.nan, count)
    r = float(np.corrcoef(errors, lengths)[0, 1])
    return Estimate(r, (1 - r * r) / math.sqrt(count - 3), count)


def _ordered(values: Floats, truths: Floats) -> tuple[float, float]:
    """Pairs in the right order, and all pairs of different truth."""
    better = np.greater.outer(truths, truths)
    right = np.greater.outer(values, values)[better].sum() + 0.5 * np.equal.outer(values, values)[better].sum()
    return float(right), float(better.sum())


def _ranks(values: Floats) -> Floats:
    """Ranks; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
