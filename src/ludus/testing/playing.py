"""What all checks of an environment share: its tasks, and rollouts through the real scheduler."""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from ludus.authoring.calling import call, inject, wanted
from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.errors import TooManyFailures
from ludus.recording.backend import Backend
from ludus.recording.expert import beside_experts
from ludus.rollouts.scheduler import Group, Plan, Scheduler
from ludus.testing.hanging import raise_if_stuck
from ludus.types import MAIN_ROLE, Rollout, Sampling, Task

ROLLOUT_TIMEOUT_S = 60.0
SCANNED = 10
"""Tasks looked at for each one played, at most."""
SCAN_S = 20.0
"""Seconds after which no more tasks of a split are looked at than are played."""


@dataclass
class Subject:
    """The environment under examination and what has been seen of it so far."""

    env: Environment
    num_tasks: int
    scanned: dict[str, list[Task]] = field(default_factory=dict)
    """Tasks by split, `SCANNED` times as many as are played."""
    snapshot: bytes = b""
    """The tasks as they were."""
    demonstrations: list[Rollout] = field(default_factory=list)
    played: list[Rollout] = field(default_factory=list)
    """Rollouts of every degenerate strategy."""
    others: dict[str, Backend] = field(default_factory=dict)
    """Who plays roles beside the main one, where it is not the expert."""
    tell: Callable[[str], object] = lambda text: None
    """Told who plays now."""
    rivals: dict[str, Rollout] | None = None
    """Whom group scorers compare a task's rollout with; None: with nobody."""

    @property
    def split(self) -> str:
        """The split that is played."""
        return "train" if "train" in self.env.splits else self.env.splits[0]

    @property
    def tasks(self) -> list[Task]:
        """The tasks that are played."""
        return self.scanned.get(self.split, [])[: self.num_tasks]

    @property
    def other_tasks(self) -> list[Task]:
        """Tasks of the same split that are not played: what a policy could have learnt by heart."""
        return self.scanned.get(self.split, [])[self.num_tasks :]

    @property
    def unplayed(self) -> list[str]:
        """Roles that have no expert and that nobody was named for: who plays the main one plays them, too."""
        roles = [role for role in self.env.roles if role != MAIN_ROLE and role not in self.others]
        return [role for role in roles if self.env.demonstrator_of(role) is None]

    async def scan(self) -> None:
        """Collect the tasks of all splits. Raises what `tasks` raises."""
        for split in self.env.splits:
            self.scanned[split] = await call(
                take, self.env, split, SCANNED * self.num_tasks, least=self.num_tasks, seconds=SCAN_S
            )
        self.snapshot = msgspec.json.encode(self.scanned)

    async def play(self, backend: Backend, tasks: Sequence[Task], sampling: Sampling | None = None) -> list[Rollout]:
        """One rollout of each task, in order, without retries. Failed ones are in the result.

        Raises NeverReturns where most of them hang.
        """
        self.tell(backend.name)
        rollouts: dict[str, Rollout] = {}
        plan = Plan(
            purpose="check", split=self.split, sampling=sampling or Sampling(), concurrency=16,
            timeout_s=ROLLOUT_TIMEOUT_S, max_retries=0,
        )  # fmt: skip
        visits = [(task, visit) for visit, task in enumerate(tasks)]
        backends = {**beside_experts(self.env, backend), **self.others}
        try:
            async with _Beside(self.env, backends, plan, rivals=self.rivals) as scheduler:
                async for group in scheduler.groups(visits, 1):
                    rollouts.update((rollout.group, rollout) for rollout in group.rollouts)
        except TooManyFailures:
            pass  # what finished says why
        raise_if_stuck(backend.name, list(rollouts.values()))
        return sorted(rollouts.values(), key=lambda rollout: rollout.seeds.visit)

    async def has_demonstration(self, task: Task) -> bool:
        """Whether the expert has something to say; taken for granted where only a running rollout could tell."""
        demonstrate = self.env.demonstrate
        if inspect.isgeneratorfunction(demonstrate) or not set(wanted(demonstrate)) <= {"task", "random"}:
            return True
        ctx = Context(task=task, models={}, random=random.Random(0))
        try:
            return await call(demonstrate, **inject(demonstrate, ctx.injectable())) is not None
        except Exception:  # noqa: BLE001 - somebody else's code; its rollouts will fail with it, and say so
            return True


@dataclass
class _Beside(Scheduler):
    """Lets group scorers compare each rollout with its rival."""

    rivals: Mapping[str, Rollout] | None = None

    async def _compare(self, group: Group) -> None:
        if self.rivals is None:
            await super()._compare(group)
        elif rival := self.rivals.get(group.task.id):
            own = {mark.name for _, mark in self.env.group_scorers()}
            rewards = [reward for reward in rival.rewards if reward.scorer.partition("/")[0] not in own]
            beside = msgspec.structs.replace(rival, id=f"{rival.id}-rival", rewards=rewards, group_calls=[])
            await super()._compare(dataclasses.replace(group, rollouts=[*group.rollouts, beside]))


def failures(rollouts: Sequence[Rollout]) -> list[str]:
    """What went wrong through no fault of the policy, one line a rollout."""
    return [f"task {r.task.id}: {r.failure.boundary}: {r.failure.error}" for r in rollouts if r.failure and r.excluded]
