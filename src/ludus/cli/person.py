"""A person behind the model: shown the conversation, asked for the reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ludus.authoring.calling import call
from ludus.authoring.environment import Environment
from ludus.authoring.tasks import MOST_TASKS, take
from ludus.cli.output import faint
from ludus.cli.transcript import message_lines
from ludus.errors import RolloutError, UnknownName, UsageError
from ludus.recording.expert import beside_experts
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.seeds import derive
from ludus.types import Message, Reply, Rollout, Sampling, Task, ToolCall

DRAWN_FROM = 1000
"""Tasks among which one is drawn."""


async def play_task(env: Environment, person: Person, plan: Plan, task: Task) -> Rollout:
    """The rollout of a person who plays one task, against the environment's expert where there are several roles."""
    async with Scheduler(env, beside_experts(env, person), plan) as scheduler:
        groups = [group async for group in scheduler.groups([(task, 0)], 1)]
    return groups[0].rollouts[0]


def choose_task(env: Environment, split: str, seed: int, name: str | None) -> Task:
    """The task with an id or at a place; without a name, one drawn by the seed. Raises UnknownName, UsageError."""
    if name is None:
        tasks = take(env, split, DRAWN_FROM)
        return tasks[derive(seed, "play") % len(tasks)]
    if name.isdecimal():
        tasks = take(env, split, min(int(name), MOST_TASKS) + 1)
        if int(name) < len(tasks):
            return tasks[int(name)]
    by_id = {task.id: task for task in take(env, split)}
    if name not in by_id:
        raise UnknownName(f"task in {split}", name, by_id)
    return by_id[name]


class Person:
    """A `MessageBackend` that shows the conversation and asks for the reply.

    Args:
        ask: gives a line that was typed; raises EOFError where nobody will type any more.
        tell: shows a line.
    """

    name = "person"

    def __init__(self, ask: Callable[[], str], tell: Callable[[str], None]) -> None:
        self.left = False
        self._ask, self._tell = ask, tell
        self._seen: list[Message] = []

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """What the person typed. Raises RolloutError where they left."""
        known = len(self._seen)
        follows = known > 0 and list(messages[:known]) == self._seen
        for message in messages[known:] if follows else messages:
            for line in message_lines(message):
                self._tell(line)
        if not follows:
            for tool in tools:
                self._tell(faint(_usage(tool["function"])))
        self._tell("")
        reply = await self._reply(tools)
        self._seen = [*messages, reply.message]
        return reply

    async def _reply(self, tools: Sequence[dict[str, Any]]) -> Reply:
        while True:
            try:
                text = await self._text()
            except EOFError:
                self.left = True
                raise RolloutError("the person left", "model", "infrastructure") from None
            if not (tools and text.startswith("/")):
                return Reply({"role": "assistant", "content": text})
            try:
                return read_tool_call(text, [tool["function"]["name"] for tool in tools])
            except UsageError as error:
                self._tell(str(error))

    async def _text(self) -> str:
        lines = [await call(self._ask)]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(await call(self._ask))
        return "\n".join(lines)


def read_tool_call(text: str, names: Sequence[str]) -> Reply:
    """`/name {json}` as a reply. Raises UsageError for another tool or what is no JSON object."""
    name, _, rest = text[1:].partition(" ")
    if name not in names:
        raise UnknownName("tool", name, names)
    try:
        arguments = json.loads(rest or "{}")
    except ValueError as error:
        raise UsageError(f"the arguments of /{name} are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise UsageError(f'expected the arguments of /{name} as {{"argument": value}}, got {rest}')
    called = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    message: Message = {"role": "assistant", "content": "", "tool_calls": [called]}
    return Reply(message, (ToolCall("call_0", name, arguments),), "tool_calls")


def _usage(function: dict[str, Any]) -> str:
    """How a tool is called, and what it does."""
    fields = function.get("parameters", {}).get("properties", {})
    shown = ", ".join(f'"{name}": {field.get("type", "...")}' for name, field in fields.items())
    return f"/{function['name']} {{{shown}}}  {function.get('description', '').partition(chr(10))[0]}"
