"""Rewards for keeping to a token budget, as pure functions.

Source: L1, "Controlling how long a reasoning model thinks", arXiv:2503.04697, equations 1 and 2: with n tokens, a budget of
n* and a right answer (1) or a wrong one (0),

    exact    r = right - a |n* - n|
    maximum  r = right * clip(a (n* - n) + d, 0, 1)

Environments also have rewards between wrong and right, and successes that are not 1. So both are written here as a term
that is *added* to the environment's reward R, and three things are settled that the paper leaves open: the exact penalty
ends at d times the success reward, so that a right answer of any length is better than a wrong one; of a task that is
not solved no more than d R counts, so that it never passes for a success; and of one beyond the maximum no more than the
success reward, for the same reason. With R in {0, 1} and lengths within d / a of the budget, both are the paper's.
"""

from __future__ import annotations

from typing import Literal

Form = Literal["exact", "maximum"]
PENALTY = 3e-4
"""a: per token; the paper's."""
DELTA = 0.5
"""d: what a right answer of exactly the budget earns under "maximum"; the paper's."""


def length_term(form: Form, reward: float, tokens: int, budget: int, *, success: float, penalty: float) -> float:
    """What to add to an environment's reward.

    Args:
        form: whether the budget is to be met, or not to be exceeded.
        reward: R, the environment's.
        tokens: n.
        budget: n*.
        success: reward from which a task is solved; above 0.
        penalty: a.

    >>> length_term("exact", 1.0, 900, 1000, success=1.0, penalty=1e-3)
    -0.1
    >>> length_term("maximum", 1.0, 1000, 1000, success=1.0, penalty=3e-4)
    -0.5
    >>> length_term("maximum", 0.0, 10, 1000, success=1.0, penalty=3e-4)
    0.0
    """
    solved = reward >= success
    if form == "exact":
        counted = reward if solved or reward <= 0 else DELTA * reward
        return counted - reward - min(penalty * abs(budget - tokens), DELTA * success)
    if reward <= 0:
        return 0.0
    factor = min(max(penalty * (budget - tokens) + DELTA, 0.0), 1.0)
    if not solved:
        return reward * min(factor, DELTA) - reward
    return (reward if tokens <= budget else success) * factor - reward


def success_within(form: Form, success: float) -> float:
    """Reward, with the term added, from which a task counts as solved within its budget: under "maximum" right and no
    longer than the budget, under "exact" right."""
    return DELTA * success if form == "maximum" else success - DELTA * success
