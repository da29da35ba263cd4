"""What an agent did, read from its conversation: tool calls, or lines of text where it is terse.

A terse agent is shown no tools: it says `Find WORDS` or `Read ID`. That is for models so small that schemas and JSON
would be most of what they read and write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ludus.renderers.parsing import tool_calls_of
from ludus.types import Message, ToolCall

FOUND, NOTHING = "Here", "no"
"""How a terse search begins to answer, and what it says where it found nothing."""


@dataclass(frozen=True)
class Command:
    """A line that stands for the call of a tool."""

    tool: str
    read: Callable[[list[str]], dict[str, Any]]
    """From the words after the first one to arguments."""
    write: Callable[..., list[str]]
    """From arguments, by name, to those words."""


Commands = Mapping[str, Command]
"""By the line's first word."""


@dataclass(frozen=True)
class Step:
    """One call of a tool and what came of it."""

    tool: str
    arguments: Mapping[str, Any]
    result: str


def read_command(text: str, commands: Commands) -> ToolCall | None:
    """The call that a line stands for; None for a text that is no such line.

    >>> find = Command("search", lambda words: {"query": words}, lambda query: query)
    >>> read_command("Find red cube start", {"Find": find}).arguments
    {'query': ['red', 'cube', 'start']}
    """
    first, *words = text.split() or [""]
    if first not in commands or not words or "\n" in text.strip():
        return None
    return ToolCall(first, commands[first].tool, commands[first].read(words))


def write_command(tool: str, arguments: Mapping[str, Any], commands: Commands) -> str:
    """The line that stands for a call."""
    first, command = next((word, command) for word, command in commands.items() if command.tool == tool)
    return " ".join([first, *command.write(**arguments)])


def write_ids(ids: Iterable[str]) -> str:
    """What a search answers a terse agent: a word before the ids, so that each of them has a space before it.

    >>> write_ids(["angle", "array"]), write_ids([])
    ('Here angle array', 'no')
    """
    found = " ".join(ids)
    return f"{FOUND} {found}" if found else NOTHING


def read_ids(result: str) -> list[str]:
    """The ids in such an answer.

    >>> read_ids("Here angle array"), read_ids("no")
    (['angle', 'array'], [])
    """
    first, *ids = result.split() or [""]
    return ids if first == FOUND else []


def steps_of(messages: Sequence[Message], commands: Commands | None) -> Iterator[Step]:
    """The calls of a conversation in their order.

    Args:
        messages: of a finished rollout.
        commands: of a terse agent; None for one that calls tools.
    """
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        following = messages[place + 1 :]
        if commands is None:
            results = _results(following)
            for call in tool_calls_of(message):
                if call.arguments is not None:
                    yield Step(call.name, call.arguments, results.get(call.id, ""))
        elif (said := read_command(message.get("content") or "", commands)) and said.arguments is not None:
            yield Step(said.name, said.arguments, str(following[0].get("content") or "") if following else "")


def _results(following: Sequence[Message]) -> dict[str, str]:
    """What tools answered to one reply, by call."""
    results: dict[str, str] = {}
    for message in following:
        if message["role"] != "tool":
            break
        results.setdefault(str(message.get("tool_call_id")), str(message.get("content") or ""))
    return results
