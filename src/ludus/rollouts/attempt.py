"""One attempt at one task, from `setup` to the last scorer: the place where every failure gets its boundary and blame."""

from __future__ import annotations

import asyncio
import functools
import platform
import random
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import msgspec

from ludus.authoring.calling import call
from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.errors import RolloutTimeout
from ludus.protocols import Model
from ludus.rollouts.failure import as_failure, mark_failed
from ludus.rollouts.recordable import make_recordable
from ludus.rollouts.scoring import score
from ludus.sandbox.noted import noting_tiers
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Call, Failure, Message, Rollout, Seeds, Sequence, Task


class Recording(Protocol):
    """What an attempt needs of its recorder, in this process or in another."""

    calls: list[Call]
    sequences: list[Sequence]

    @property
    def model_name(self) -> str: ...

    @property
    def waiting(self) -> bool: ...

    def bind(self, env: Environment, ctx: Context) -> None: ...

    async def settle(self) -> None: ...


@dataclass(frozen=True)
class Attempt:
    """Which attempt: everything its randomness and its identity depend on."""

    task: Task
    seeds: Seeds
    split: str
    purpose: str

    @property
    def group(self) -> str:
        return f"{self.purpose}/{self.task.id}/{self.seeds.visit}"

    @property
    def id(self) -> str:
        return f"{self.seed('id', self.purpose):016x}"

    def seed(self, *what: str) -> int:
        """A seed for one use. The purpose is not part of it, so that evaluations of one run can be paired."""
        s = self.seeds
        return derive(s.run, self.task.id, s.visit, s.sample, s.attempt, *what)


async def play(
    env: Environment, attempt: Attempt, recorder: Recording, models: Mapping[str, Model], timeout_s: float | None
) -> Rollout:
    """Run the environment's loop and scorers once. Never raises for what goes wrong inside: that is in the record."""
    task = attempt.task
    rollout = Rollout(
        id=attempt.id, group=attempt.group, environment=env.describe(), task=task, split=attempt.split,
        seeds=attempt.seeds, purpose=attempt.purpose, model=recorder.model_name,
        calls=recorder.calls, started=time.time(), versions=library_versions(),
    )  # fmt: skip
    ctx = Context(task=task, models=models, random=random.Random(attempt.seed("environment")))
    equipment = AsyncExitStack()
    recorder.bind(env, ctx)
    began = time.perf_counter()
    with noting_tiers() as tiers:
        try:
            error = await _run_and_score(env, ctx, equipment, rollout, recorder, timeout_s)
        finally:
            unclean = await _tear_down(env, ctx, equipment, timeout_s)
    if error or unclean:
        await recorder.settle()
        _finish(rollout, recorder, ctx)
        mark_failed(rollout, env, _combined(error, unclean))
    rollout.sandboxes = _all_tiers(tiers, ctx)
    make_recordable(rollout, env)
    rollout.seconds = time.perf_counter() - began
    return rollout


async def _run_and_score(
    env: Environment,
    ctx: Context,
    equipment: AsyncExitStack,
    rollout: Rollout,
    recorder: Recording,
    timeout_s: float | None,
) -> Exception | None:
    """What went wrong, if anything."""
    waited: list[bool] = []
    loop = asyncio.get_running_loop()
    # The calls under way are cancelled on expiry: whether there were any has to be asked just then.
    asking = loop.call_later(timeout_s, lambda: waited.append(recorder.waiting)) if timeout_s is not None else None
    try:
        async with asyncio.timeout(timeout_s) as limit:
            ctx.tools = await equipment.enter_async_context(env.equipped())
            await call(env.setup, ctx)
            await call(env.run, ctx)
            await recorder.settle()
            _finish(rollout, recorder, ctx)
            ctx.rollout = rollout
            rollout.rewards = await score(env, ctx)
            await recorder.settle()  # scorers may have asked a judge
            rollout.sequences = _sampled(recorder)
    except Exception as error:  # noqa: BLE001 - recorded with its blame, which is the point
        if not limit.expired():
            return error
        text = f"the rollout took more than {timeout_s} s"
        return RolloutTimeout(text, "infrastructure" if any(waited) else "environment")
    finally:
        if asking is not None:
            asking.cancel()
    return None


async def _tear_down(
    env: Environment, ctx: Context, equipment: AsyncExitStack, timeout_s: float | None
) -> Exception | None:
    """What went wrong, if anything. It may take as long as the rollout itself; the equipment is put away in any case."""
    try:
        async with equipment, asyncio.timeout(timeout_s) as limit:
            await call(env.teardown, ctx)
    except Exception as error:  # noqa: BLE001 - recorded with the rollout
        return RolloutTimeout(f"teardown took more than {timeout_s} s") if limit.expired() else error
    return None


def _combined(error: Exception | None, unclean: Exception | None) -> Failure:
    """The failure of the run comes first: what it leaves behind may well break teardown."""
    if unclean is None or error is None:
        return as_failure(error or unclean or RuntimeError())
    failure = as_failure(error)
    text = f"{failure.error}; then teardown raised {type(unclean).__name__}: {unclean}"
    return msgspec.structs.replace(failure, error=text)


def _all_tiers(noted: set[str], ctx: Context) -> list[str]:
    """Those of sandboxes that were made here, and that of one that an author made in a way of their own."""
    own = getattr(ctx.sandbox, "tier", None)
    return sorted(noted | ({own} if isinstance(own, str) else set()))


def _finish(rollout: Rollout, recorder: Recording, ctx: Context) -> None:
    rollout.sequences = _sampled(recorder)
    rollout.stop = ctx.stop or "done"
    rollout.tools = [tool.schema for tool in ctx.tools.values()]
    rollout.epilogue = _after_last_reply(ctx.messages, rollout)


def _sampled(recorder: Recording) -> list[Sequence]:
    return [sequence for sequence in recorder.sequences if sequence.num_sampled]


def _after_last_reply(messages: list[Message], rollout: Rollout) -> list[Message]:
    """The environment's last word: what the loop's conversation has after the main role's last reply."""
    said = rollout.conversation(MAIN_ROLE)[-1:]
    ends = (i for i in range(len(messages), 0, -1) if messages[i - 1 : i] == said)
    return messages[next(ends, len(messages)) :]


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of what can change a rollout's arithmetic."""
    versions = {"python": platform.python_version()}
    for name in ("ludus-rl", "torch", "tokenizers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
