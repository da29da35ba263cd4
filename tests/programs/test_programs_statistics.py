"""Statistics against SciPy, brute force and published formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.errors import UsageError
from ludus.programs import statistics as S

scores = st.lists(st.floats(-5, 5), min_size=1, max_size=5)
by_task = st.dictionaries(st.text(max_size=3), scores, min_size=2, max_size=8)


def test_the_mean_of_task_means() -> None:
    estimate = S.clustered_mean({"a": [1.0, 0.0], "b": [1.0], "c": [0.0, 0.0, 0.0], "empty": []})
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.se == pytest.approx(0.5 / math.sqrt(3))
    assert estimate.num_tasks == 3


def test_the_error_is_millers_clustered_one() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(7, 4)) + rng.normal(size=(7, 1))
    estimate = S.clustered_mean({str(i): list(row) for i, row in enumerate(samples)})
    centred = samples - samples.mean()
    pairs = sum(centred[c, i] * centred[c, j] for c in range(7) for i in range(4) for j in range(4) if i != j)
    miller = math.sqrt((centred**2).sum() / 28**2 + pairs / 28**2)
    assert estimate.se == pytest.approx(miller * math.sqrt(7 / 6))


def test_what_cannot_be_estimated_is_nan() -> None:
    one = S.clustered_mean({"a": [1.0, 0.0]})
    assert (one.mean, one.num_tasks) == (0.5, 1)
    assert math.isnan(one.se)
    assert all(math.isnan(bound) for bound in one.interval())
    assert math.isnan(S.clustered_mean({}).mean)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 6), (6, 5, 2), (4, 1, 4)])
def test_pass_at_k_by_counting_subsets(n: int, c: int, k: int) -> None:
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert S.pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))
    assert S.pass_hat_k(n, c, k) == pytest.approx(sum(all(s) for s in subsets) / len(subsets))


def test_pass_at_k_over_tasks() -> None:
    correct = {"a": [True, False, False, False], "b": [True] * 4, "few": [True]}
    assert S.mean_pass_at_k(correct, 2).mean == pytest.approx((0.5 + 1) / 2)
    assert S.mean_pass_at_k(correct, 2).num_tasks == 2
    assert S.mean_pass_hat_k(correct, 2).mean == pytest.approx(0.5)
    with pytest.raises(UsageError, match="k = 5"):
        S.pass_at_k(4, 2, 5)


def test_exclusions_at_worst_and_best() -> None:
    low, high = S.exclusion_bounds({"a": [1.0], "b": [0.0, 1.0]}, {"a": 1, "c": 2, "b": 0})
    assert low == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert high == pytest.approx((1 + 0.5 + 1) / 3)
    assert S.exclusion_bounds({"a": [1.0]}, {}) == (1.0, 1.0)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 99, 1000, 20001])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.975, 0.999, 0.025])
def test_t_quantiles(probability: float, degrees: int) -> None:
    assert S.t_quantile(probability, degrees) == pytest.approx(
        float(scipy.stats.t.ppf(probability, degrees)), rel=1e-9, abs=1e-9
    )


def test_the_paired_difference_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=20), rng.normal(size=20) + 0.3
    paired = S.paired_difference({str(i): [x] for i, x in enumerate(a)}, {str(i): [x] for i, x in enumerate(b)})
    expected = scipy.stats.ttest_rel(b, a).confidence_interval(0.95)
    assert paired.difference.mean == pytest.approx((b - a).mean())
    assert paired.interval == pytest.approx((expected.low, expected.high))
    assert set(paired.gained) == {str(i) for i in range(20) if b[i] > a[i]}
    assert set(paired.lost) == {str(i) for i in range(20) if b[i] < a[i]}
    assert paired.mcnemar_p is None


def test_paired_binary_outcomes_get_mcnemars_p() -> None:
    a = {"w": [0.0], "x": [0.0], "y": [1.0], "z": [1.0], "only a": [1.0]}
    b = {"w": [1.0], "x": [1.0], "y": [0.0], "z": [1.0]}
    paired = S.paired_difference(a, b)
    assert paired.mcnemar_p == pytest.approx(scipy.stats.binomtest(1, 3).pvalue)
    assert (paired.gained, paired.lost, paired.a.num_tasks) == (("w", "x"), ("y",), 4)
    with pytest.raises(UsageError, match="no task in common"):
        S.paired_difference({"a": [1.0]}, {"b": [1.0], "a": []})


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 5), (1, 9), (12, 3)])
def test_mcnemar(gained: int, lost: int) -> None:
    expected = scipy.stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert S.mcnemar_exact(gained, lost) == pytest.approx(expected)


def test_quantiles() -> None:
    assert S.quantiles([4.0, 1.0, 3.0, 2.0], (0.5, 0.995)) == pytest.approx({"p50": 2.5, "p99.5": 3.985})
    assert S.quantiles([]) == {}


@given(by_task, st.floats(-5, 5))
@settings(max_examples=40, deadline=None)
def test_shifting_every_score_shifts_the_mean_alone(scores: dict[str, list[float]], shift: float) -> None:
    before = S.clustered_mean(scores)
    after = S.clustered_mean({task: [x + shift for x in values] for task, values in scores.items()})
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-9)
    assert after.se == pytest.approx(before.se, abs=1e-9)


@given(by_task, by_task)
@settings(max_examples=40, deadline=None)
def test_comparing_the_other_way_round_changes_the_sign(a: dict[str, list[float]], b: dict[str, list[float]]) -> None:
    a, b = {**a, "common": [0.0]}, {**b, "common": [1.0]}
    there, back = S.paired_difference(a, b), S.paired_difference(b, a)
    assert there.difference.mean == pytest.approx(-back.difference.mean)
    assert set(there.gained) == set(back.lost)
