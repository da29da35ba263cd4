"""Rescore: the scorers of today on the recorded rollouts. Nothing runs but them.

A scorer that asks for what only a live rollout has (`state`, `sandbox`, `models`, `ctx`, `random`) is left out and said so:
re-enacting makes those again. Group scorers compare the recorded group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ludus.authoring.calling import wanted
from ludus.authoring.declare import ScorerMark
from ludus.authoring.environment import Environment
from ludus.errors import RolloutError
from ludus.programs.replay.rewards import Judged, judge, not_judged
from ludus.programs.replay.selection import Environments, Selection
from ludus.rollouts.failure import mark_failed
from ludus.rollouts.scoring import ask, ask_group
from ludus.types import Rollout


@dataclass
class _Rescored:
    """A rollout on its way: what scorers see of it, and what they said."""

    recorded: Rollout
    shown: Rollout
    """As it was when it was scored: without its time, and with the rewards of the scorers before."""
    cannot: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


async def rescore(selection: Selection, environments: Environments) -> list[Judged]:
    """Judge the chosen rollouts anew. Raises UsageError where an environment can't be built."""
    judged: list[Judged] = []
    for batch in selection.batches():
        for group in await asyncio.gather(*(_rescore_group(environments, group) for group in batch)):
            judged += [one for one in group if one.rollout in selection.ids]
    return judged


async def _rescore_group(environments: Environments, group: Sequence[Rollout]) -> list[Judged]:
    env = environments.of(group[0])
    alive = [_Rescored(r, msgspec.structs.replace(r, rewards=[], seconds=0.0)) for r in group if r.failure is None]
    await asyncio.gather(*(_ask_scorers(env, one) for one in alive))
    if alive:
        await _ask_group_scorers(env, alive)
    judged = {one.recorded.id: judge(one.recorded, one.shown.rewards, one.cannot, one.errors) for one in alive}
    return [judged[r.id] if r.id in judged else _failed(env, r) for r in group]


async def _ask_scorers(env: Environment, one: _Rescored) -> None:
    available = {"task": one.recorded.task, "rollout": one.shown}
    rewards = one.shown.rewards
    for fn, mark in env.scorers():
        if missing := _missing(fn, available):
            one.cannot[mark.name] = missing
            continue
        try:
            rewards += await ask(fn, mark, available, env.roles)
        except RolloutError as error:
            one.errors[mark.name] = str(error)
    one.shown.seconds = one.recorded.seconds


async def _ask_group_scorers(env: Environment, alive: Sequence[_Rescored]) -> None:
    for fn, mark in env.group_scorers():
        missing = _missing(fn, {"task": None, "group": None})
        try:
            if not missing:
                await _ask_group_scorer(env, fn, mark, alive)
        except RolloutError as error:
            for one in alive:
                one.errors[mark.name] = str(error)
        if missing:
            for one in alive:
                one.cannot[mark.name] = missing


async def _ask_group_scorer(
    env: Environment, fn: Callable[..., Any], mark: ScorerMark, alive: Sequence[_Rescored]
) -> None:
    """Where another scorer could not be asked, the group scorer sees what it said then."""
    seen = [
        msgspec.structs.replace(
            one.shown, rewards=[*one.shown.rewards, *(r for r in one.recorded.rewards if r.scorer in one.cannot)]
        )
        for one in alive
    ]
    for one, rewards in zip(alive, await ask_group(fn, mark, seen, env.roles), strict=True):
        one.shown.rewards = one.shown.rewards + rewards


def _missing(fn: Callable[..., Any], available: dict[str, Any]) -> str:
    names = [name for name in wanted(fn) if name not in available]
    return f"asks for {' and '.join(names)}, which no record holds: re-enact" if names else ""


def _failed(env: Environment, rollout: Rollout) -> Judged:
    """A failure of the policy earns what the environment says; another one was never scored."""
    assert rollout.failure is not None  # the others are judged
    if rollout.excluded:
        return not_judged(rollout, f"failed and was never scored (blame: {rollout.failure.blame})")
    again = msgspec.structs.replace(rollout)
    mark_failed(again, env, rollout.failure)
    return judge(rollout, again.rewards)
