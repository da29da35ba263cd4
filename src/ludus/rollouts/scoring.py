"""Rewards: call the scorers of a finished rollout or group, and accept nothing but finite numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ludus.authoring.calling import call, inject
from ludus.authoring.context import Context
from ludus.authoring.declare import ScorerMark
from ludus.authoring.environment import Environment
from ludus.errors import ModelCallFailed, RolloutError, ScorerFailed
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Reward, Rollout


async def score(env: Environment, ctx: Context) -> list[Reward]:
    """What the environment's scorers say of `ctx.rollout`, whose rewards are, for each, those of the scorers before it.

    Raises ScorerFailed naming the scorer at fault.
    """
    assert ctx.rollout is not None  # it is over
    rewards = ctx.rollout.rewards
    for fn, mark in env.scorers():
        rewards += await ask(fn, mark, ctx.injectable(), env.roles)
    return rewards


async def score_group(env: Environment, rollouts: list[Rollout], models: Mapping[str, Model] = {}) -> None:
    """Let the group scorers compare the rollouts of one task; adds to their rewards. Raises ScorerFailed.

    Args:
        models: of each role, for scorers that ask a judge.
    """
    for fn, mark in env.group_scorers():
        rewards_G = await ask_group(fn, mark, rollouts, env.roles, models)
        for rollout, rewards in zip(rollouts, rewards_G, strict=True):
            rollout.rewards += rewards


async def ask(
    fn: Callable[..., Any], mark: ScorerMark, available: Mapping[str, Any], roles: Sequence[str]
) -> list[Reward]:
    """What one scorer says, given what it may ask for by name. Raises ScorerFailed."""
    return _as_rewards(await _ask(fn, mark, available), mark, roles)


async def ask_group(
    fn: Callable[..., Any],
    mark: ScorerMark,
    rollouts: list[Rollout],
    roles: Sequence[str],
    models: Mapping[str, Model] = {},
) -> list[list[Reward]]:
    """What one group scorer says of each rollout, in order. Raises ScorerFailed."""
    values = await _ask(fn, mark, {"group": rollouts, "task": rollouts[0].task, "models": models})
    if not isinstance(values, list | tuple) or len(values) != len(rollouts):
        raise ScorerFailed(
            f"the group scorer {mark.name} must return one number per rollout ({len(rollouts)}), got {values!r}"
        )
    return [_as_rewards(value, mark, roles) for value in values]


async def _ask(fn: Callable[..., Any], mark: ScorerMark, available: Mapping[str, Any]) -> Any:
    try:
        return await call(fn, **inject(fn, available))
    except ModelCallFailed as error:  # whoever wrote what the judge was to read: a verdict that is missing is no score
        raise ScorerFailed(f"the scorer {mark.name} got no answer from a model: {error}", "infrastructure") from error
    except RolloutError:
        raise
    except Exception as error:
        raise ScorerFailed(f"the scorer {mark.name} raised {type(error).__name__}: {error}") from error


def _as_rewards(value: Any, mark: ScorerMark, roles: Sequence[str]) -> list[Reward]:
    if isinstance(value, list) and all(isinstance(item, Reward) for item in value):
        return [_checked(item, mark, roles) for item in value]
    if isinstance(value, Reward):
        return [_checked(value, mark, roles)]
    if not _is_finite_number(value):
        raise ScorerFailed(f"the scorer {mark.name} must return a finite number, got {value!r}")
    return [Reward(mark.name, float(value), mark.weight, MAIN_ROLE)]


def _checked(reward: Reward, mark: ScorerMark, roles: Sequence[str]) -> Reward:
    if reward.role not in roles:
        raise ScorerFailed(
            f"the scorer {mark.name} rewards the role {reward.role!r}, but there is only {', '.join(roles)}"
        )
    if not _is_finite_number(reward.value):
        raise ScorerFailed(f"the scorer {mark.name} must return finite numbers, got {reward.value!r}")
    if reward.turn is not None and type(reward.turn) is not int:
        raise ScorerFailed(f"the scorer {mark.name} must name a turn by an int, got {reward.turn!r}")
    if not isinstance(reward.note, str):
        raise ScorerFailed(f"the scorer {mark.name} must return notes of text, got {reward.note!r}")
    if not _is_finite_number(reward.weight):
        raise ScorerFailed(f"the scorer {mark.name} must return finite weights, got {reward.weight!r}")
    weight = mark.weight * float(reward.weight)
    name = mark.name + reward.scorer if reward.scorer.startswith("/") else reward.scorer or mark.name
    return Reward(name, float(reward.value), weight, reward.role, reward.turn, reward.note)


def _is_finite_number(value: Any) -> bool:
    """Python's and numpy's numbers and bools; never strings or None."""
    if isinstance(value, str | bytes) or value is None:
        return False
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False
