"""Policies that follow a plan rather than a model, and what they see of a conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.errors import ModelCallFailed
from ludus.recording.backend import Backend
from ludus.recording.expert import Expert
from ludus.renderers.parsing import tool_calls_of
from ludus.testing.scripted import MOST_CHARACTERS, MOST_MESSAGES, answer_text
from ludus.types import Message, Reply, Rollout, Sampling

Act = Callable[[Sequence[Message], Sequence[dict[str, Any]]], Message | str | Reply]
"""What is said next, given the conversation and the schemas of the tools."""

Read = Callable[[Sequence[Message], str], str]
"""What is taken from messages, given the prompt of their task."""

Rule = Literal["honest", "reference", "guess", "blind", "leak", "added"]
"""How a strategy's reward is judged. "reference" is only shown. "guess": one plain answer, made without a look at the task,
which may be lucky. "blind": as little knowledge, but no plain answer. "leak": the answer, taken from where it should not
be. "added": an honest reply with something that is worth nothing."""


@dataclass(frozen=True)
class Strategy:
    """A way to play, and how to judge what it earns."""

    name: str
    rule: Rule
    backend: Backend
    read: Read | None = None
    """Of a leak: what it finds. What it finds in the texts that experts read as well is no leak."""
    said: Callable[[Rollout], str] = lambda rollout: rollout.reply
    """What is taken for its answer."""


class Policy:
    """A `MessageBackend` that does what a function of the conversation and the tools says."""

    def __init__(self, name: str, act: Act) -> None:
        self.name, self._act = name, act

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The next reply. Raises ModelCallFailed for a conversation beyond all bounds."""
        await asyncio.sleep(0)  # a loop that never ends must not starve the one that times it out
        if len(messages) > MOST_MESSAGES or sum(len(content(message)) for message in messages) > MOST_CHARACTERS:
            raise ModelCallFailed(f"the conversation has {len(messages)} messages", "policy")
        return as_reply(self._act(messages, tools))


class Knower:
    """Says the known answer of each task."""

    name = "known answer"

    def bind(self, env: Environment, ctx: Context, role: str) -> Policy:
        """Who knows the answer of one rollout's task."""
        answer = answer_text(ctx.task) if ctx.task.answer is not None else ""
        return Policy(self.name, lambda messages, tools: answer)

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Outside of a rollout nothing is known."""
        return as_reply("")


def expert_of(env: Environment) -> Backend:
    """The environment's expert, or who knows the answers."""
    return Expert() if env.can_demonstrate else Knower()


class GivesUp:
    """Breaks every rollout off, as a model does whose context is full."""

    name = "breaks off"

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Raises ModelCallFailed, by the policy's own fault."""
        raise ModelCallFailed("it breaks off on purpose", "policy")


def as_reply(said: Message | str | Reply) -> Reply:
    """A text or message as a model's reply."""
    if isinstance(said, Reply):
        return said
    message: Message = {"role": "assistant", "content": said} if isinstance(said, str) else said
    called = tool_calls_of(message)
    return Reply(message, called, "tool_calls" if called else "stop")


def calling(calls: Sequence[tuple[str, dict[str, Any]]]) -> Message:
    """One reply that calls tools, by name with arguments."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": f"call-{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
            }
            for number, (name, arguments) in enumerate(calls)
        ],
    }


def content(message: Message) -> str:
    """A message's text; of parts, their texts."""
    found = message.get("content") or ""
    if isinstance(found, str):
        return found
    return "\n".join(str(part.get("text") or "") for part in found if isinstance(part, dict))


def prompt_of(messages: Sequence[Message]) -> str:
    """The text of the first message of the user, which is the task."""
    return next((content(message) for message in messages if message["role"] == "user"), "")


def num_replies(messages: Sequence[Message]) -> int:
    return sum(message["role"] == "assistant" for message in messages)
