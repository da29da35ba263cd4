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

OTHER_SCHEMA = "tools offered with another schema than before, which is left out"
NO_SCHEMA = "tools whose schema is malformed and left out"

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

    def add(self, recorded: list[Any], clean: list[Any]) -> tuple[list[str], list[str]]:
        """Take in the tools that were offered; returns their names, and what is wrong with some: nothing that a chat API
        would take, or another schema than before, which stays.

        Args:
            recorded: as they were.
            clean: without secrets.
        """
        names, problems = list[str](), list[str]()
        for schema in clean:
            function = schema.get("function") if isinstance(schema, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(function, dict) or not isinstance(name, str) or len(self._schemas) >= MOST_TOOLS:
                continue
            names.append(name)
            self.offered = True
            parameters = function.get("parameters")
            problems += [NO_SCHEMA] if parameters and not _is_schema(parameters) else []
            tool = _schema(name, function.get("description"), parameters)
            problems += [OTHER_SCHEMA] if self._schemas.setdefault(name, tool) != tool else []
        if len(self._known) < MOST_KNOWN:
            self._known[_key(recorded)] = names
        return names, problems

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
    function = {
        "name": name,
        "description": description if isinstance(description, str) and description.strip() else f"{name}.",
        "parameters": {"type": "object", **parameters}
        if _is_schema(parameters)
        else {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def _is_schema(parameters: Any) -> bool:
    """Whether a chat API takes it for the parameters of a tool, as far as can be seen."""
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        return False
    properties, required = parameters.get("properties", {}), parameters.get("required", [])
    tables = isinstance(properties, dict) and all(isinstance(inner, dict | bool) for inner in properties.values())
    return tables and isinstance(required, list) and all(isinstance(name, str) for name in required)


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
