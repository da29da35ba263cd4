"""Reading what models and clients wrote into a message: the arguments of its tool calls.

How a whole reply is read depends on the chat template: see `formats`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ludus.types import Message, ToolCall

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names a message's reasoning goes by, the standard one first."""

JSON_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeEncodeError)
"""What decoding arbitrary text raises: no JSON, nested too deeply, lone surrogates."""


def tool_calls_of(message: Message) -> tuple[ToolCall, ...]:
    """A message's tool calls with their arguments read; where that fails, `arguments` is None and `error` says why."""
    return tuple(_tool_call(call.get("id") or "", call["function"]) for call in message.get("tool_calls") or ())


def _tool_call(id: str, function: dict[str, Any]) -> ToolCall:
    name, text = function["name"], function.get("arguments") or "{}"
    try:
        value = msgspec.json.decode(text) if isinstance(text, str) else text
    except JSON_ERRORS as error:
        return ToolCall(id, name, None, f"the arguments of {name} are not valid JSON ({error}): {text[:200]}")
    if not isinstance(value, dict):
        return ToolCall(id, name, None, f"the arguments of {name}: expected a JSON object, got {kind(value)}")
    return ToolCall(id, name, value)


def arguments_of(function: dict[str, Any]) -> Any:
    """The arguments of a tool call as an object, where they are one or the JSON text of one; else as they are."""
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return arguments
    try:
        value = msgspec.json.decode(arguments)
    except JSON_ERRORS:
        return arguments
    return value if isinstance(value, dict) else arguments


def reasoning(message: Message) -> str | None:
    """A message's reasoning, whichever name it goes by; None if it has none."""
    return next((message[name] for name in REASONING_FIELDS if message.get(name) is not None), None)


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {str: "a string", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return "an empty string" if value == "" else names.get(type(value), "a number")
