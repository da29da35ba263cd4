"""`Replies`: a model that says again what was recorded, and compares what it is asked with what was asked then.

A call is matched by its conversation, so that calls under way side by side find their own replies in whatever order
they come; one that fits none is taken for the open call that begins most like it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.errors import ModelCallFailed
from ludus.programs.replay.result import Difference, short
from ludus.recording.backend import MessageBackend
from ludus.recording.expert import Expert
from ludus.recording.wire import canonical
from ludus.renderers.parsing import tool_calls_of
from ludus.types import MAIN_ROLE, Message, Reply, Rollout, Sampling

NO_MORE = "no such call was recorded"


@dataclass
class Log:
    """What became of one rollout's calls."""

    differences: list[Difference] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    """Recorded calls that were made again."""
    ended: bool = False
    """Whether a call came that was never recorded: what follows has no meaning."""


class Replies:
    """The recorded replies of one role; a `Bindable` backend.

    Args:
        recorded: the rollout.
        role: whose model this stands for.
        log: shared by the roles.
    """

    def __init__(self, recorded: Rollout, role: str, log: Log) -> None:
        self.name = recorded.model
        self._recorded, self._log = recorded, log
        self._is_expert = recorded.model == Expert.name and role == MAIN_ROLE
        self._expert: MessageBackend | None = None
        self._asked = {i: asked(recorded, i) for i, call in enumerate(recorded.calls) if call.role == role}
        self._keys = {i: [canonical(message) for message in messages] for i, messages in self._asked.items()}

    def bind(self, env: Environment, ctx: Context, role: str) -> MessageBackend:
        """The demonstrator is the environment's own and draws from its randomness, so it plays along."""
        if self._is_expert:
            self._expert = Expert().bind(env, ctx, role)
        return self

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The recorded reply. Raises ModelCallFailed where none was recorded, or the rollout ended so then too."""
        await asyncio.sleep(0)  # as every model does: calls that are made side by side stay so
        said = await self._expert.complete(messages, tools, sampling) if self._expert else None
        number = self._match(messages)
        if number is None:
            raise self._beyond(messages)
        self._log.used.add(number)
        self._log.differences += compare(f"call {number + 1}", self._asked[number], messages)
        call = self._recorded.calls[number]
        if said is not None:
            self._log.differences += compare(f"call {number + 1}, reply", [call.reply], [said.message])
        return Reply(call.reply, tool_calls_of(call.reply), call.finish_reason, call.usage, call.malformed)

    def _match(self, messages: Sequence[Message]) -> int | None:
        keys = [canonical(message) for message in messages]
        left = [number for number in self._keys if number not in self._log.used]
        exact = [number for number in left if self._keys[number] == keys]
        return next(iter(exact), max(left, key=lambda n: (_common(self._keys[n], keys), -n), default=None))

    def _beyond(self, messages: Sequence[Message]) -> ModelCallFailed:
        failure = self._recorded.failure
        if failure is not None and failure.boundary == "model":
            return ModelCallFailed(_original(failure.error), failure.blame)
        if not self._log.ended:
            self._log.ended = True
            where = f"call {len(self._recorded.calls) + 1}"
            self._log.differences.append(Difference(where, NO_MORE, short(text_of(messages[-1]) if messages else "")))
        return ModelCallFailed(f"{NO_MORE}: the replay ends here")


def asked(rollout: Rollout, index: int) -> list[Message]:
    """The whole conversation that a recorded call was made with."""
    parts, number = [rollout.calls[index].messages], rollout.calls[index].parent
    while number is not None:
        call = rollout.calls[number]
        parts.append([*call.messages, call.reply])
        number = call.parent
    return [message for part in reversed(parts) for message in part]


def compare(where: str, then: Sequence[Message], now: Sequence[Message]) -> list[Difference]:
    """The first difference between two conversations, as none or one: which message, which field, both texts."""
    for number, (before, after) in enumerate(zip(then, now, strict=False), 1):
        if canonical(before) != canonical(after):
            field, old, new = _field(before, after)
            who = f" ({after.get('role')})" if len(then) > 1 else ""
            return [Difference(f"{where}, message {number}{who}, {field}", old, new)]
    if len(then) == len(now):
        return []
    number = min(len(then), len(now))
    old, new = (
        short(text_of(messages[number])) if len(messages) > number else "no message" for messages in (then, now)
    )
    return [Difference(f"{where}, message {number + 1}", old, new)]


def _original(error: str) -> str:
    """What the model call failed with, of a failure's text."""
    return error.removeprefix("ModelCallFailed: ").partition("; of which the agent made: ")[0]


def text_of(message: Message) -> Any:
    """What a message says: its text, or its tool calls."""
    return message.get("content") or message.get("tool_calls") or ""


def _field(before: Message, after: Message) -> tuple[str, str, str]:
    for name in dict.fromkeys(["role", "content", *before, *after]):
        old, new = before.get(name), after.get(name)
        if old != new and (old or new):
            return name, *_around(old, new)
    return "content", short(before), short(after)


def _around(old: Any, new: Any) -> tuple[str, str]:
    """Both texts from shortly before where they part."""
    if not (isinstance(old, str) and isinstance(new, str)):
        return short(old), short(new)
    at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, at - 12)
    lead = "…" if start else ""
    return lead + short(old[start:]), lead + short(new[start:])


def _common(a: Sequence[bytes], b: Sequence[bytes]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
