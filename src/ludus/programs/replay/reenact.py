"""Re-enact: the environment's loop again, from the recorded seeds, with a model that answers as it did then.

What the environment sends, why it ends and what it rewards is compared with the record. The same `play` runs as in
training; nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec

from ludus.authoring.environment import Environment
from ludus.programs.replay.replies import NO_MORE, Log, Replies, compare
from ludus.programs.replay.result import Difference, Finding, short
from ludus.programs.replay.rewards import Judged, judge, not_judged
from ludus.programs.replay.selection import Environments, Selection
from ludus.recording.backend import Backend
from ludus.recording.gateway import Gateway
from ludus.recording.recorder import Recorder
from ludus.rollouts.attempt import Attempt
from ludus.rollouts.comparing import compare as compare_group
from ludus.rollouts.scheduler import play_recorded
from ludus.types import Failure, Rollout

Reenacted = tuple[Finding, Judged]


async def reenact(selection: Selection, environments: Environments, timeout_s: float) -> list[Reenacted]:
    """Play the chosen rollouts again. Raises UsageError where an environment can't be built."""
    gateway = Gateway()
    played: list[Reenacted] = []
    opened: dict[int, Environment] = {}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)
        for batch in selection.batches():
            for env in [environments.of(group[0]) for group in batch]:
                if id(env) not in opened:
                    opened[id(env)] = env
                    await stack.enter_async_context(env.opened())
            groups = (_group(environments.of(g[0]), g, selection, gateway, timeout_s) for g in batch)
            for group in await asyncio.gather(*groups):
                played += group
    return played


async def _group(
    env: Environment, group: Sequence[Rollout], selection: Selection, gateway: Gateway, timeout_s: float
) -> list[Reenacted]:
    """Where the group is compared, all of it is played again; otherwise those that were chosen."""
    grouped = bool(env.group_scorers())
    wanted = [r for r in group if (grouped or r.id in selection.ids) and not _hopeless(r)]
    plays = await asyncio.gather(*(_play(env, recorded, gateway, timeout_s) for recorded in wanted))
    again = {recorded.id: result for recorded, result in zip(wanted, plays, strict=True)}
    if grouped:
        await _compare_group(env, group, again, gateway, timeout_s)
    return [_compared(r, *again[r.id]) if r.id in again else _left_out(r) for r in group if r.id in selection.ids]


async def _play(env: Environment, recorded: Rollout, gateway: Gateway, timeout_s: float) -> tuple[Rollout, Log]:
    log = Log()
    backends: dict[str, Backend] = {role: Replies(recorded, role, log) for role in env.roles}
    attempt = Attempt(recorded.task, recorded.seeds, recorded.split, recorded.purpose)
    recorder = Recorder(backends, seed=attempt.seed("model"), session=recorded.id)
    return await play_recorded(env, attempt, recorder, gateway, timeout_s), log


async def _compare_group(
    env: Environment,
    group: Sequence[Rollout],
    again: Mapping[str, tuple[Rollout, Log]],
    gateway: Gateway,
    timeout_s: float,
) -> None:
    """Let the group scorers judge again, with the recorded verdicts of those that they asked."""
    played = [rollout for rollout, _ in again.values() if rollout.failure is None]
    recorded = next((rollout for rollout in group if rollout.group_calls), group[0])
    log = again[recorded.id][1] if recorded.id in again else Log()
    asked = msgspec.structs.replace(recorded, calls=recorded.group_calls)
    verdicts = Log()
    backends: dict[str, Backend] = {role: Replies(asked, role, verdicts) for role in env.roles}
    await compare_group(env, played, Recorder(backends), gateway, timeout_s)
    log.differences += verdicts.differences


def _compared(recorded: Rollout, again: Rollout, log: Log) -> Reenacted:
    found = list(log.differences)
    if log.ended:
        return _finding(recorded, found), not_judged(recorded, NO_MORE)
    if len(log.used) < len(recorded.calls):
        found.append(Difference("calls", str(len(recorded.calls)), str(len(log.used))))
    found += compare("after the last reply", recorded.epilogue, again.epilogue)
    for where, then, now in (
        ("tools", recorded.tools, again.tools), ("stop", recorded.stop, again.stop),
        ("failure", _about(recorded.failure), _about(again.failure)),
    ):  # fmt: skip
        if msgspec.json.encode(then, order="sorted") != msgspec.json.encode(now, order="sorted"):
            found.append(Difference(where, short(then), short(now)))
    judged = judge(recorded, again.rewards)
    found += [
        Difference(f"reward {difference.where}", difference.then, difference.now)
        for difference in judged.finding().differences
    ]
    return _finding(recorded, found), judged


def _about(failure: Failure | None) -> str | None:
    """A failure without its trace, which has the lines of the code."""
    return None if failure is None else f"{failure.boundary}, blame {failure.blame}: {failure.error}"


def _hopeless(recorded: Rollout) -> str:
    """Why a rollout can't be played again, or ""."""
    failure = recorded.failure
    if failure is not None and failure.boundary == "timeout":
        return "ran into its time limit, which a replay does not repeat"
    if failure is not None and failure.error.startswith("the environment ended its process"):
        return "its environment ended its process, which would end this one"
    return ""


def _left_out(recorded: Rollout) -> Reenacted:
    why = _hopeless(recorded)
    return _finding(recorded, [], why), not_judged(recorded, why)


def _finding(recorded: Rollout, found: list[Difference], cannot: str = "") -> Finding:
    return Finding(
        rollout=recorded.id, task=recorded.task.id, purpose=recorded.purpose, differences=found, cannot=cannot
    )
