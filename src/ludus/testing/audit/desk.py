"""Answers that are handed in by a tool: what would be said goes to the tool that experts end with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.recording.backend import Backend, Bindable, MessageBackend
from ludus.testing.audit.code import WORKERS
from ludus.testing.audit.policy import Strategy, as_reply, calling
from ludus.testing.scripted import is_answer
from ludus.types import MAIN_ROLE, Message, Reply, Rollout, Sampling

NAMED = re.compile(r"answer|submit|final|finish|respond|report|complete|guess|conclude", re.IGNORECASE)
"""Names of tools that take answers."""
MOST = 2
"""Parameters that are tried."""


@dataclass(frozen=True)
class Desk:
    """Where answers are handed in."""

    tool: str
    parameter: str
    others: dict[str, Any]
    """The other arguments, as the expert had them in another task or as plain as can be."""

    def handed_in(self, rollout: Rollout) -> str:
        """The answer of a rollout; what it said last where it handed in none."""
        calls = [found for found in _calls(rollout.conversation(MAIN_ROLE)) if found[0] == self.tool]
        return str(calls[-1][1].get(self.parameter, "")) if calls else rollout.reply

    def strategy(self, strategy: Strategy) -> Strategy:
        """A strategy that hands in what another one would say."""
        name = f"{strategy.name}, by {self.tool}({self.parameter})"
        return replace(strategy, name=name, backend=HandsIn(name, strategy.backend, self), said=self.handed_in)


def desks_of(rollouts: Sequence[Rollout]) -> list[Desk]:
    """Where experts hand their answers in, [] where they say them: the last tool they call is given the answer, or nothing
    that differs from task to task is said after it."""
    last = [(rollout, calls[-1]) for rollout in rollouts if (calls := _calls(rollout.conversation(MAIN_ROLE)))]
    if not last or len(last) < len(rollouts):
        return []
    tool, arguments = last[0][1]
    texts = [one for one, value in arguments.items() if isinstance(value, str) and one not in WORKERS]
    right = [one for one in texts if all(is_answer(str(found.get(one)), each.task) for each, (_, found) in last)]
    said = {each.reply.strip() for each, _ in last}
    unsaid = said == {""} or (len(said) == 1 and len(last) > 1)
    if not unsaid and (not right or all(is_answer(each.reply, each.task) for each, _ in last)):
        return []
    return [
        Desk(tool, parameter, {key: value for key, value in arguments.items() if key != parameter})
        for parameter in (right or texts)[:MOST]
    ]


def likely_desks(tools: Sequence[dict[str, Any]]) -> list[Desk]:
    """Where there is no expert: tools that are called so and need one text."""
    found = []
    for function in (tool["function"] for tool in tools):
        parameters = function.get("parameters", {})
        fields, needed = parameters.get("properties", {}), parameters.get("required", [])
        texts = [name for name in needed if fields.get(name, {}).get("type") == "string" and name not in WORKERS]
        if NAMED.search(function["name"]) and len(needed) == len(texts) == 1:
            found.append(Desk(function["name"], texts[0], {}))
    return found[:MOST]


class HandsIn:
    """Hands in what another backend says, then says that it is done."""

    def __init__(self, name: str, inner: Backend, desk: Desk) -> None:
        self.name, self._inner, self._desk = name, inner, desk

    def bind(self, env: Environment, ctx: Context, role: str) -> MessageBackend:
        """That of one rollout."""
        inner = self._inner
        return HandsIn(self.name, inner.bind(env, ctx, role) if isinstance(inner, Bindable) else inner, self._desk)

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The other one's reply, its text as a call. It is not shown the tool, so that it does not end before its time."""
        assert isinstance(self._inner, MessageBackend)  # what strategies are made of
        if any(tool == self._desk.tool for tool, _ in _calls(messages)):
            return as_reply("Done.")
        others = [tool for tool in tools if tool["function"]["name"] != self._desk.tool]
        reply = await self._inner.complete(messages, others, sampling)
        if reply.tool_calls or reply.malformed or reply.truncated:
            return reply
        return as_reply(calling([(self._desk.tool, {**self._desk.others, self._desk.parameter: reply.text})]))


def changed(reply: Reply, desks: Sequence[Desk], change: Callable[[str], str]) -> Reply:
    """A reply whose answer is another one, said or handed in."""
    if not reply.tool_calls:
        return as_reply({**reply.message, "content": change(reply.text)})
    parameters = {desk.tool: desk.parameter for desk in desks}
    calls = _calls([reply.message])
    if not any(tool in parameters for tool, _ in calls):
        return reply
    return as_reply(
        calling(
            [
                (tool, {key: change(value) if key == parameters.get(tool) else value for key, value in found.items()})
                for tool, found in calls
            ]
        )
    )


def _calls(messages: Sequence[Message]) -> list[tuple[str, dict[str, Any]]]:
    """Tools that were called, with arguments that could be read."""
    found = []
    for function in (one["function"] for message in messages for one in message.get("tool_calls") or ()):
        try:
            arguments = json.loads(function["arguments"])
        except ValueError:
            continue
        if isinstance(arguments, dict):
            found.append((function["name"], arguments))
    return found
