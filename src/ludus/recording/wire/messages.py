"""Messages as they go over the wire: as JSON, recognised whoever carried them, and cut where a stop string says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from ludus.renderers.parsing import JSON_ERRORS
from ludus.types import Message

PLAIN = {"role", "content"}
"""Fields of a message that is nothing but text."""

_encode = msgspec.json.Encoder(order="sorted").encode


def canonical(message: Message) -> bytes:
    """A key that is the same for a message and for what clients make of it.

    Clients drop or rename reasoning, add null fields, send text as parts, and write the arguments of tool calls anew.
    Text, role, name, the ids of tool calls and the values of their arguments all count.
    """
    content = message.get("content")
    if type(content) is str and message.keys() == PLAIN:
        return _key([message["role"], content])
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        content = "".join(part["text"] for part in content)
    calls = [
        [call.get("id"), call["function"]["name"], _value(call["function"].get("arguments"))]
        for call in message.get("tool_calls") or ()
    ]
    rest = [message.get("name") or None, message.get("tool_call_id") or None, calls]
    parts = [message["role"], "" if content is None else content]
    return _key(parts if rest == [None, None, []] else parts + rest)


def _value(arguments: Any) -> Any:
    """What the arguments say; wrapped, so that the JSON text of a text is not taken for the text."""
    try:
        return [msgspec.json.decode(arguments)]
    except (*JSON_ERRORS, TypeError):
        return arguments


def _key(parts: list[Any]) -> bytes:
    try:
        return _encode(parts)
    except UnicodeEncodeError:  # lone surrogates, which UTF-8 can't hold
        return json.dumps(parts, sort_keys=True).encode()


def cut_at(message: Message, stops: Sequence[str]) -> tuple[Message, str]:
    """The message up to the first stop string in its text, as APIs give it, and that stop string, or ""."""
    text = message.get("content") or ""
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    if not found:
        return message, ""
    at, stop = min(found)
    return {**message, "content": text[:at]}, stop


def encode(value: Any) -> bytes:
    """JSON, fast; what UTF-8 can't hold (lone surrogates) is escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def decode(text: bytes) -> Any:
    """A value from JSON, lone surrogates included. Raises ValueError, RecursionError."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)
