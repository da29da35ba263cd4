"""What the tests of environments share: models that say what they are told, and a way to run an environment."""

import asyncio
from collections.abc import Callable, Iterable

from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.recording.backend import Backend
from ludus.renderers.parsing import tool_calls_of
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Reply, Rollout


class Says:
    """A model of messages: texts one after another (the last one for ever), or a function of the conversation."""

    name = "script"

    def __init__(self, *texts: str, by: Callable | None = None) -> None:
        self._by = by or (lambda messages: texts[min(_replies(messages), len(texts) - 1)])

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        return Reply({"role": "assistant", "content": self._by(messages)})


class Calls:
    """A model that says messages one after another, such as those of `calls_tool`, and then that it is done."""

    name = "calls"

    def __init__(self, *messages: dict) -> None:
        self._messages = messages

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        turn = _replies(messages)
        message = self._messages[turn] if turn < len(self._messages) else {"role": "assistant", "content": "done"}
        called = tool_calls_of(message)
        return Reply(message, called, "tool_calls" if called else "stop")


def _replies(messages: Iterable[dict]) -> int:
    return sum(message["role"] == "assistant" for message in messages)


async def play(
    env: Environment, model: Backend, *, num: int = 1, size: int = 1, split: str = "test", roles: dict | None = None,
    **plan,
) -> list[Rollout]:  # fmt: skip
    """Rollouts of an environment's first tasks, in order."""
    tasks = take(env, split, num)
    plan = Plan(**{"max_retries": 0, "timeout_s": 60.0, "split": split, **plan})
    async with Scheduler(env, {MAIN_ROLE: model, **(roles or {})}, plan) as scheduler:
        groups = [group async for group in scheduler.groups([(task, 0) for task in tasks], size)]
    order = {task.id: place for place, task in enumerate(tasks)}
    return [r for group in sorted(groups, key=lambda group: order[group.task.id]) for r in group.rollouts]


def spoken(rollout: Rollout, role: str = MAIN_ROLE) -> list[str]:
    """The texts of a role's conversation, in order."""
    messages = rollout.messages if role == MAIN_ROLE else rollout.conversation(role)
    return [message["content"] for message in messages]


def heard(rollout: Rollout) -> list[str]:
    """What the tools answered, in order."""
    return [message["content"] for message in rollout.messages if message["role"] == "tool"]
