"""What the tests of rollouts share: models that say what they are told, and a way to run an environment once."""

import asyncio

import ludus
from ludus.errors import ModelCallFailed
from ludus.rollouts.scheduler import Group, Plan, Scheduler
from ludus.types import MAIN_ROLE, Reply, Rollout, Task


class Says:
    """A model of messages: a text, a reply, or a function of the conversation that gives one (or raises)."""

    def __init__(self, what="ok", name="script"):
        self.what, self.name = what, name

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        said = self.what(messages) if callable(self.what) else self.what
        return said if isinstance(said, Reply) else Reply({"role": "assistant", "content": said})


class Hangs:
    """A model that never answers."""

    name = "hanging"

    async def complete(self, messages, tools, sampling):
        await asyncio.Event().wait()


class Fails:
    """A model that can't answer."""

    name = "failing"

    def __init__(self, blame="infrastructure"):
        self.blame = blame

    async def complete(self, messages, tools, sampling):
        raise ModelCallFailed("out of order", self.blame)


class Small(ludus.Environment):
    """Eight tasks; one reply, always worth 1."""

    max_turns = 3

    def tasks(self, split):
        return [Task(prompt=f"{split} {i}", answer=str(i)) for i in range(8)]

    @ludus.reward
    def fine(self, rollout):
        return 1.0


async def run(env, model=None, *, tasks=1, size=1, roles=None, on_rollout=None, **plan) -> list[Group]:
    """Groups of an environment's first tasks, in the order of the tasks."""
    backends = {MAIN_ROLE: model or Says(), **(roles or {})}
    plan = Plan(**{"max_retries": 0, "timeout_s": 120.0, **plan})
    todo = [(task, 0) for task in list(env.tasks("test"))[:tasks]]
    async with Scheduler(env, backends, plan, on_rollout=on_rollout or (lambda rollout: None)) as scheduler:
        groups = [group async for group in scheduler.groups(todo, size)]
    return sorted(groups, key=lambda group: [task.id for task, _ in todo].index(group.task.id))


async def attempt(env, model=None, **plan) -> Rollout:
    """One rollout of the first task."""
    return (await run(env, model, **plan))[0].rollouts[0]
