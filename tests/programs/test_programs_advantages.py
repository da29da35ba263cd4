"""Advantages: golden numbers of the formulas, and what holds for all rewards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.errors import UsageError
from ludus.programs.advantages import ADVANTAGES, Array, advantage, grpo

groups = st.lists(st.floats(0, 10), min_size=1, max_size=8).map(lambda values: np.array(values))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("group_mean", [0.75, -0.25, -0.25, -0.25]),
        ("grpo", [0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001]),
        ("rloo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("max_rl", [3.0, -1.0, -1.0, -1.0]),
    ],
)
def test_one_of_four_solved(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(ADVANTAGES[name](np.array([1.0, 0.0, 0.0, 0.0])), expected, rtol=1e-12)


def test_rloo_is_each_reward_minus_the_mean_of_the_others() -> None:
    rewards_G = np.array([0.2, 1.0, -0.5, 0.7])
    expected = [rewards_G[i] - np.delete(rewards_G, i).mean() for i in range(4)]
    np.testing.assert_allclose(ADVANTAGES["rloo"](rewards_G), expected)


def test_max_rl_is_zero_where_the_mean_is_not_positive() -> None:
    assert not ADVANTAGES["max_rl"](np.array([0.0, 0.0])).any()
    assert not ADVANTAGES["max_rl"](np.array([1.0, -3.0])).any()


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
@given(rewards_G=groups)
@settings(max_examples=30, deadline=None)
def test_advantages_are_finite_centred_and_ordered_like_rewards(name: str, rewards_G: Array) -> None:
    before = rewards_G.copy()
    advantages_G = ADVANTAGES[name](rewards_G)
    assert advantages_G.shape == rewards_G.shape
    assert np.isfinite(advantages_G).all()
    assert abs(advantages_G.sum()) <= 1e-6 * max(1.0, np.abs(advantages_G).max())
    assert (np.diff(advantages_G[np.argsort(rewards_G)]) >= -1e-9).all()
    np.testing.assert_array_equal(rewards_G, before)


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
def test_equal_rewards_and_single_rollouts_teach_nothing(name: str) -> None:
    assert not ADVANTAGES[name](np.full(4, 0.5)).any()
    assert not ADVANTAGES[name](np.array([3.0])).any()


@pytest.fixture
def registry() -> Iterator[dict[str, object]]:
    before = dict(ADVANTAGES)
    yield ADVANTAGES
    ADVANTAGES.clear()
    ADVANTAGES.update(before)


def test_authors_add_their_own(registry: dict[str, object]) -> None:
    @advantage("sign")
    def sign(rewards_G: Array) -> Array:
        return np.sign(rewards_G - rewards_G.mean())

    assert registry["sign"] is sign
    with pytest.raises(UsageError, match="'grpo'"):
        advantage("grpo")(sign)
    assert advantage("grpo")(grpo) is grpo, "a file may be loaded again"
