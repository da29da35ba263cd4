"""Policies that know nothing: an environment whose scorers reward one of them can be won without being understood."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from ludus.errors import ModelCallFailed
from ludus.types import Message, Reply, Sampling, Task

MOST_MESSAGES = 400
MOST_CHARACTERS = 2_000_000
"""A conversation longer than this would have outgrown any model's context."""

Say = Callable[[Sequence[Message]], str]
"""The reply to a conversation."""


class Scripted:
    """A `MessageBackend` that says what a function of the conversation says.

    >>> import asyncio
    >>> asyncio.run(Scripted("yes", lambda messages: "yes").complete([], (), Sampling())).text
    'yes'
    """

    def __init__(self, name: str, say: Say) -> None:
        self.name, self._say = name, say

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The next reply. Raises ModelCallFailed, as a model would, for a conversation beyond all bounds."""
        await asyncio.sleep(0)  # a loop that never ends must not starve the one that times it out
        characters = sum(len(str(message.get("content") or "")) for message in messages)
        if len(messages) > MOST_MESSAGES or characters > MOST_CHARACTERS:
            raise ModelCallFailed(f"the conversation has {len(messages)} messages, {characters} characters", "policy")
        return Reply({"role": "assistant", "content": self._say(messages)})


class Unreachable:
    """A model that is never there."""

    name = "unreachable"

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Raises ModelCallFailed."""
        raise ModelCallFailed("this model never answers")


def degenerate_replies(known: Sequence[str]) -> dict[str, Say]:
    """Strategies by name. `known` are answers of other tasks than those played, commonest first."""
    constants: dict[str, str] = {
        "empty": "",
        "white space": " \n\t ",
        "20,000 characters": "word " * 4_000,
        "format words alone": "Answer: <answer></answer> \\boxed{} #### The final answer is",
        "many answers": ", ".join(_many(known)),
    }
    constants |= {f"always {text!r}": text for text in ("0", "1", "yes", "A", "True")}
    if known:
        constants["commonest answer"] = known[0]
    strategies = {name: _always(text) for name, text in constants.items()}
    return {**strategies, "garbage": _garbage, "echo of the prompt": _echo}


def commonest_answers(tasks: Iterable[Task]) -> list[str]:
    """The distinct known answers as text, commonest first."""
    counts = Counter(answer_text(task) for task in tasks if task.answer is not None)
    return [answer for answer, _ in counts.most_common()]


def answer_text(task: Task) -> str:
    """The known answer as a model would write it."""
    return task.answer if isinstance(task.answer, str) else msgspec.json.encode(task.answer).decode()


def is_answer(reply: str, task: Task) -> bool:
    """Whether a reply is the known answer, up to case, white space at the ends and how a number is written."""
    if task.answer is None:
        return False
    said, known = reply.strip().casefold(), answer_text(task).strip().casefold()
    try:
        return said == known or float(said) == float(known)
    except ValueError:
        return False


def _always(text: str) -> Say:
    return lambda messages: text


def _many(known: Sequence[str]) -> list[str]:
    words = ["yes", "no", "True", "False", "A", "B", "C", "D", "E", "none", "unknown"]
    return list(dict.fromkeys([*known[:50], *words, *map(str, range(-10, 101))]))


def _garbage(messages: Sequence[Message]) -> str:
    rng = random.Random(str(messages))
    return "".join(chr(rng.choice((rng.randrange(1, 0xD800), rng.randrange(0xE000, 0x110000)))) for _ in range(100))


def _echo(messages: Sequence[Message]) -> str:
    return next((str(m.get("content") or "") for m in messages if m["role"] == "user"), "")
