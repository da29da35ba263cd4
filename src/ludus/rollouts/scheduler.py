"""`Scheduler`: groups of rollouts, many at once, with retries, exclusion and a clean way to stop.

A group is all attempts at one visit to one task. Failures that are not the policy's are retried with a fresh rollout,
then excluded; nothing is ever silently 0.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from ludus.authoring.environment import Environment
from ludus.authoring.loading import rebuildable
from ludus.protocols import Lockstep
from ludus.recording.backend import Backend, Bindable, TokenBackend
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.redaction import SECRETS
from ludus.rollouts.attempt import Attempt, play
from ludus.rollouts.comparing import compare
from ludus.rollouts.failure import FailureWatch, blame_model
from ludus.rollouts.lag import LagMonitor
from ludus.rollouts.workers import WorkerPool, cancel_all
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Rollout, Sampling, Seeds, Task

log = logging.getLogger(__name__)


@dataclass
class Group:
    """The rollouts of one visit to one task."""

    task: Task
    visit: int
    rollouts: list[Rollout]
    success_reward: float = 1.0
    """The environment's: from which a rollout counts as a success."""

    @property
    def scored(self) -> list[Rollout]:
        """Those that count: failures of the policy included, excluded ones not."""
        return [rollout for rollout in self.rollouts if not rollout.excluded]


@dataclass(frozen=True)
class Plan:
    """How rollouts are run."""

    seed: int = 0
    purpose: str = "eval"
    split: str = "test"
    sampling: Sampling = Sampling()
    concurrency: int = 128
    timeout_s: float | None = 600.0
    max_retries: int = 2
    workers: int = 0
    """Processes that run the environment; 0 runs it in this one."""
    deterministic: bool = False
    """Start rollouts in fixed waves, so that batches are composed the same way each time."""


@dataclass
class Scheduler:
    """Runs rollouts of one environment.

    Args:
        env: the environment.
        backends: what stands behind each role; roles not named share the main role's.
        plan: how.
        on_rollout: told each finished attempt, failed ones included.
        limit: of rollouts at once, where other schedulers have a part in it; by default the plan's alone.
    """

    env: Environment
    backends: Mapping[str, Backend]
    plan: Plan
    on_rollout: Callable[[Rollout], object] = lambda rollout: None
    limit: asyncio.Semaphore | None = None
    watch: FailureWatch = field(default_factory=FailureWatch)
    lag: LagMonitor = field(default_factory=LagMonitor)
    stopping: bool = False
    """Set to start nothing new; what runs is finished."""
    _gateway: Gateway = field(init=False)
    _open: AsyncExitStack = field(init=False)
    _pool: WorkerPool | None = None

    async def __aenter__(self) -> Scheduler:
        async with AsyncExitStack() as stack:
            SECRETS.learn(os.environ)
            self._gateway = Gateway()
            stack.push_async_callback(self._gateway.close)
            if self.plan.workers:
                await self._start_workers()
            if self._pool is not None:
                stack.push_async_callback(self._pool.close)
            else:
                await stack.enter_async_context(self.env.opened())
            self.lag.start()
            stack.push_async_callback(self.lag.stop)
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._open.aclose()

    async def groups(self, tasks: Iterable[tuple[Task, int]], size: int) -> AsyncIterator[Group]:
        """Run a group of `size` rollouts for each (task, visit), and yield groups as they finish (in deterministic
        mode: in order). Raises TooManyFailures."""
        if self.plan.deterministic:
            async for group in self._in_waves(list(tasks), size):
                yield group
            return
        limit = self.limit or asyncio.Semaphore(self.plan.concurrency)
        running: set[asyncio.Task[Group]] = set()
        waiting = iter(tasks)
        ahead = max(1, -(-self.plan.concurrency // size)) + 1  # enough groups that a slow one doesn't idle the rest
        try:
            while True:
                while len(running) < ahead and not self.stopping and (next_one := next(waiting, None)) is not None:
                    running.add(asyncio.create_task(self._group(*next_one, size, limit)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    group = task.result()
                    self.watch.check()
                    yield group
        finally:
            await cancel_all(running)

    async def _start_workers(self) -> None:
        why = (
            "it has processes of its own" if self.env.isolated else
            "it was not loaded by name, or has options that are not plain values" if not rebuildable(self.env) else
            "the model has to be inside the rollout" if any(isinstance(b, Bindable) for b in self.backends.values()) else
            ""
        )  # fmt: skip
        if why:
            log.warning("%s runs in this process, not in workers: %s", self.env.describe().id, why)
            return
        self._pool = WorkerPool(self.env.describe(), self.plan.workers)
        await self._pool.start()

    async def _in_waves(self, tasks: list[tuple[Task, int]], size: int) -> AsyncIterator[Group]:
        """Everything in a wave starts at once and is attached to the engine before any of it samples."""
        step = max(1, self.plan.concurrency // size)
        for start in range(0, len(tasks), step):
            if self.stopping:
                return
            wave = tasks[start : start + step]
            for sampler in self._lockstep_samplers():
                sampler.attach(len(wave) * size)
            running = [asyncio.create_task(self._group(task, visit, size, None)) for task, visit in wave]
            try:
                groups = await asyncio.gather(*running)
                self.watch.check()
                for group in groups:
                    yield group
            finally:
                await cancel_all(set(running))

    async def _group(self, task: Task, visit: int, size: int, limit: asyncio.Semaphore | None) -> Group:
        seats = _Seats(size, self._lockstep_samplers() if limit is None else [])
        attempts = [self._until_scored(task, visit, sample, limit, seats) for sample in range(size)]
        runs = [asyncio.create_task(attempt) for attempt in attempts]
        try:
            group = Group(task, visit, list(await asyncio.gather(*runs)), self.env.success_reward)
            await self._compare(group)
        finally:
            await cancel_all(set(runs))
            seats.leave_last()
        for rollout in group.rollouts:
            self._finish(rollout)
        return group

    def _finish(self, attempt: Rollout) -> None:
        self.watch.see(attempt)
        self.on_rollout(attempt)

    async def _compare(self, group: Group) -> None:
        """Compare what did not fail: a failure's reward is the environment's `failure_reward` and nothing else."""
        rollouts = [rollout for rollout in group.rollouts if rollout.failure is None]
        if not self.env.group_scorers() or not rollouts:
            return
        recorder = Recorder(
            self._roles(),
            self.plan.sampling,
            derive(self.plan.seed, group.task.id, group.visit, "group"),
            rollouts[0].group,
            (group.task.id, group.visit, len(group.rollouts)),
            frozenset(self.env.pinned),
        )
        await compare(self.env, rollouts, recorder, self._gateway, self.plan.timeout_s)

    def _roles(self) -> dict[str, Backend]:
        """What stands behind each role."""
        return {role: self.backends.get(role, self.backends[MAIN_ROLE]) for role in self.env.roles}

    async def _until_scored(
        self, task: Task, visit: int, sample: int, limit: asyncio.Semaphore | None, seats: _Seats
    ) -> Rollout:
        """Attempts at one sample until one counts, or retries are used up; failed ones are reported on the way."""
        try:
            number = 0
            while True:
                seeds = Seeds(self.plan.seed, visit, sample, number)
                rollout = await self._attempt(Attempt(task, seeds, self.plan.split, self.plan.purpose), limit)
                if not rollout.excluded or number == self.plan.max_retries:
                    return rollout
                self.watch.retried += 1
                number += 1
                self._finish(rollout)
        finally:
            seats.leave()

    async def _attempt(self, attempt: Attempt, limit: asyncio.Semaphore | None) -> Rollout:
        if limit is None:
            return await self._play(attempt)
        async with limit:
            return await self._play(attempt)

    async def _play(self, attempt: Attempt) -> Rollout:
        recorder = Recorder(
            self._roles(),
            self.plan.sampling,
            attempt.seed("model"),
            attempt.id,
            (attempt.task.id, attempt.seeds.visit, attempt.seeds.sample),
            frozenset(self.env.pinned),
        )
        return await play_recorded(self.env, attempt, recorder, self._gateway, self.plan.timeout_s, self._pool)

    def _lockstep_samplers(self) -> list[Lockstep]:
        """The distinct samplers behind the roles that can wait for each other."""
        samplers = [backend.sampler for backend in self.backends.values() if isinstance(backend, TokenBackend)]
        return list({id(sampler): sampler for sampler in samplers if isinstance(sampler, Lockstep)}.values())


class _Seats:
    """A group's places in batches that are composed in a fixed order. The last rollout leaves its own to the scorers of the
    group, which may have to ask the same engine.

    Args:
        size: rollouts of the group, attached already.
        samplers: that wait for each of them.
    """

    def __init__(self, size: int, samplers: list[Lockstep]) -> None:
        self._left, self._samplers = size, samplers

    def leave(self) -> None:
        """A rollout has ended."""
        self._left -= 1
        if self._left:
            self._detach()

    def leave_last(self) -> None:
        """The group is scored."""
        self._detach()

    def _detach(self) -> None:
        for sampler in self._samplers:
            sampler.detach()


async def play_recorded(
    env: Environment,
    attempt: Attempt,
    recorder: Recorder,
    gateway: Gateway,
    timeout_s: float | None,
    pool: WorkerPool | None = None,
) -> Rollout:
    """Play an attempt, here or in a pool of workers; whatever happens, its models and its record are closed afterwards.
    Where its model failed, that is why the rollout did."""
    models = {role: RecordedModel(recorder, role, gateway) for role in recorder.backends}
    try:
        if pool is None:
            rollout = await play(env, attempt, recorder, models, timeout_s)
        else:
            rollout = await pool.play(attempt, recorder, models, timeout_s)
        blame_model(rollout, env, recorder.failed)
        return rollout
    finally:
        for model in models.values():
            model.close()
        recorder.close()
