"""The tools of recorded conversations: their schemas, recorded or made up from calls, and a few examples of each."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import msgspec

from ludus.types import Message

MOST_EXAMPLES = 5
"""Of each tool."""
MOST_EXAMPLE_CHARACTERS = 4000
MOST_TOOLS = 1000
MOST_KNOWN = 1000
"""Lists of tools that are recognised when they come again."""

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


class Tools:
    """Collects them, conversation by conversation; memory grows with the number of tools alone."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}
        self.offered = False
        """Whether any conversation says what tools were offered."""
        self._schemas: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, dict[str, set[str]]] = {}
        """Types of arguments of tools, by tool and argument."""
        self._known: dict[bytes, list[str]] = {}

    def known(self, recorded: list[Any]) -> list[str] | None:
        """Names of a list of tools that has come before; None of a new one."""
        return self._known.get(_key(recorded))

    def add(self, recorded: list[Any], clean: list[Any]) -> tuple[list[str], int]:
        """Take in the tools that were offered; returns their names, and how many had another schema before, which stays.

        Args:
            recorded: as they were.
            clean: without secrets.
        """
        names, num_other = list[str](), 0
        for schema in clean:
            function = schema.get("function") if isinstance(schema, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(function, dict) or not isinstance(name, str) or len(self._schemas) >= MOST_TOOLS:
                continue
            names.append(name)
            self.offered = True
            tool = _schema(name, function.get("description"), function.get("parameters"))
            num_other += self._schemas.setdefault(name, tool) != tool
        if len(self._known) < MOST_KNOWN:
            self._known[_key(recorded)] = names
        return names, num_other

    def see(self, rest: list[Message], *, as_examples: bool) -> list[str]:
        """Take in the calls of a conversation; returns the names of the tools that were called.

        Args:
            rest: its messages.
            as_examples: whether they may be shown as examples: those of the held-out split may not.
        """
        called: dict[str, tuple[str, dict[str, Any]]] = {}
        names: dict[str, None] = {}
        for message in rest:
            for call in message.get("tool_calls") or ():
                name, arguments = call["function"]["name"], _arguments(call["function"]["arguments"])
                called[call["id"]] = (name, arguments)
                names[name] = None
                self.calls[name] += 1
                self._note(name, arguments)
            if message["role"] == "tool" and as_examples and message["tool_call_id"] in called:
                self._example(*called[message["tool_call_id"]], message["content"])
        return list(names)

    def schemas(self) -> list[dict[str, Any]]:
        """All tools, in OpenAI's format; of those that were only called, the schema says what was seen."""
        made = {name: self._made_up(name) for name in self._seen if name not in self._schemas}
        return [*self._schemas.values(), *made.values()]

    def _note(self, name: str, arguments: dict[str, Any]) -> None:
        if name not in self._schemas and (name in self._seen or len(self._seen) < MOST_TOOLS):
            fields = self._seen.setdefault(name, {})
            for argument, value in list(arguments.items())[:50]:
                if argument in fields or len(fields) < 50:
                    fields.setdefault(argument, set()).add(_KINDS.get(type(value), "null"))

    def _example(self, name: str, arguments: dict[str, Any], result: str) -> None:
        kept = self.examples.setdefault(name, [])
        if len(kept) < MOST_EXAMPLES and len(result) <= MOST_EXAMPLE_CHARACTERS:
            example = {"name": name, "arguments": arguments, "result": _value(result)}
            if example not in kept:
                kept.append(example)

    def _made_up(self, name: str) -> dict[str, Any]:
        fields = {argument: {"type": _one(kinds)} for argument, kinds in self._seen[name].items()}
        return _schema(name, f"{name}, as it was called in the traces.", {"type": "object", "properties": fields})


def _schema(name: str, description: Any, parameters: Any) -> dict[str, Any]:
    fine = isinstance(parameters, dict) and parameters.get("type") == "object"
    function = {
        "name": name,
        "description": description if isinstance(description, str) and description.strip() else f"{name}.",
        "parameters": parameters if fine else {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def _one(kinds: set[str]) -> Any:
    if kinds == {"integer", "number"}:
        return "number"
    return next(iter(kinds)) if len(kinds) == 1 else sorted(kinds)


def _arguments(text: str) -> dict[str, Any]:
    value = _value(text)
    return value if isinstance(value, dict) else {}


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text


def _key(recorded: list[Any]) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(recorded), digest_size=16).digest()
