"""Advantages: what the loss multiplies, from the rewards of the rollouts that are compared.

Each is a pure function of one group's rewards, shape [G]. Adding one:

    @advantage("sign")
    def sign(rewards_G):
        return np.sign(rewards_G - rewards_G.mean())

A group of one has nothing to be compared with: its advantage is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ludus.errors import UsageError

Array = NDArray[np.float64]
Advantage = Callable[[Array], Array]
"""Rewards of a group, float64 of shape [G] -> advantages of shape [G]."""

STD_EPSILON = 1e-4
"""Keeps the division by a spread finite; TRL's value."""

ADVANTAGES: dict[str, Advantage] = {}
"""Every advantage by the name that configuration uses."""


def advantage(name: str) -> Callable[[Advantage], Advantage]:
    """Make a function available as `advantage = "name"`. Raises UsageError where another function has the name."""

    def register(function: Advantage) -> Advantage:
        if name in ADVANTAGES and _place(ADVANTAGES[name]) != _place(
            function
        ):  # a file that is loaded again is welcome
            raise UsageError(f"there is already an advantage named {name!r}; choose another name")
        ADVANTAGES[name] = function
        return function

    return register


def _place(function: Advantage) -> tuple[str, str]:
    return function.__module__, function.__qualname__


@advantage("group_mean")
def group_mean(rewards_G: Array) -> Array:
    """r - mean(r). Dr. GRPO, arXiv:2503.20783."""
    return rewards_G - float(rewards_G.mean())


@advantage("grpo")
def grpo(rewards_G: Array) -> Array:
    """(r - mean(r)) / (std(r) + 1e-4). GRPO, arXiv:2402.03300.

    The standard deviation is the sample's (ddof 1), as in TRL. The division weights groups that are almost solved, or
    almost failed, more than the others; `group_mean` does not.
    """
    return group_mean(rewards_G) / (_sample_std(rewards_G) + STD_EPSILON)


@advantage("rloo")
def rloo(rewards_G: Array) -> Array:
    """r_i - mean of the others' r = G / (G - 1) · (r_i - mean(r)). REINFORCE leave-one-out, arXiv:2402.14740."""
    size = len(rewards_G)
    return group_mean(rewards_G) * (size / (size - 1)) if size > 1 else np.zeros_like(rewards_G)


@advantage("max_rl")
def max_rl(rewards_G: Array) -> Array:
    """(r - mean(r)) / mean(r), and 0 where mean(r) <= 0. MaxRL, arXiv:2602.02710; for rewards >= 0."""
    mean = rewards_G.mean()
    return (rewards_G - mean) / mean if mean > 0 else np.zeros_like(rewards_G)


def _sample_std(values: Array) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
