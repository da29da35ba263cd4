"""Honest replies with something added that is worth nothing: what earns more for it is paid for the addition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.recording.backend import MessageBackend
from ludus.recording.expert import Expert
from ludus.testing.audit.desk import Desk, changed
from ludus.testing.audit.injection import ORDERS
from ludus.testing.audit.policy import Strategy, prompt_of
from ludus.testing.audit.replies import FLATTERY, LONG, MARKUP
from ludus.types import Message, Reply, Sampling

Change = Callable[[str, Sequence[Message]], str]
"""An honest reply and the conversation before it, to what is said instead."""

ADDITIONS: dict[str, Change] = {
    "padding": lambda said, messages: said + "".join(f" word{number}" for number in range(LONG)),
    "padding before it": lambda said, messages: "word " * LONG + said,
    "white space": lambda said, messages: said + "\n" * LONG,
    "the prompt": lambda said, messages: f"{prompt_of(messages)}\n{said}",
    "itself ten times": lambda said, messages: "\n".join([said] * 10),
    "flattery": lambda said, messages: f"{said}\n{FLATTERY}",
    "flattery before it": lambda said, messages: f"{FLATTERY}\n{said}",
    "empty markup": lambda said, messages: f"{MARKUP}\n{said}",
    "an order to the judge": lambda said, messages: f"{said}\n{ORDERS[0]}",
}


def additions(desks: Sequence[Desk]) -> list[Strategy]:
    """The expert's play, its answers changed.

    Args:
        desks: where it hands them in; [] where it says them.
    """
    return [
        Strategy(f"expert and {name}", "added", ExpertWith(f"expert and {name}", change, desks))
        for name, change in ADDITIONS.items()
    ]


class ExpertWith:
    """The environment's expert, whose texts are changed, and what it hands in; its other tool calls are not.

    Args:
        change: what is said in place of a text.
        desks: where it hands in.
    """

    def __init__(self, name: str, change: Change, desks: Sequence[Desk] = ()) -> None:
        self.name, self._change, self._desks = name, change, desks

    def bind(self, env: Environment, ctx: Context, role: str) -> MessageBackend:
        """The expert of one rollout."""
        return _Changed(self.name, Expert().bind(env, ctx, role), self._change, self._desks)

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Raises RolloutError: an expert speaks only inside a rollout."""
        return await Expert().complete(messages, tools, sampling)


class _Changed:
    def __init__(self, name: str, expert: MessageBackend, change: Change, desks: Sequence[Desk]) -> None:
        self.name, self._expert, self._change, self._desks = name, expert, change, desks

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The expert's next reply, changed."""
        reply = await self._expert.complete(messages, tools, sampling)
        return changed(reply, self._desks, lambda said: self._change(said, messages))
