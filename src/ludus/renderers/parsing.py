"""Reading a reply's text: reasoning, tool calls, and what is left.

The format is Hermes', which Qwen's and many other templates teach: `<think>reasoning</think>`, then text, then
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>` blocks. Nothing the model writes raises: a block that can't
be read makes the whole reply plain text, with an explanation that can be shown to the model. Left out: other formats.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from ludus.types import FinishReason, Message, ToolCall

FORM = '<tool_call>\n{"name": "the tool", "arguments": {...}}\n</tool_call>'

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names a message's reasoning goes by, the standard one first."""

JSON_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeEncodeError)
"""What decoding arbitrary text raises: no JSON, nested too deeply, lone surrogates."""

_OPEN, _CLOSE = "<think>", "</think>"
_BLOCK = re.compile(r"\n?<tool_call>(.*?)</tool_call>", re.DOTALL)


def parse_reply(text: str, *, thinking: bool = False, finish_reason: FinishReason = "stop") -> tuple[Message, str]:
    """The assistant message in a reply's text, and why a tool call in it was malformed, or "".

    >>> parse_reply("<think>easy</think>4")[0]
    {'role': 'assistant', 'reasoning_content': 'easy', 'content': '4'}

    Args:
        text: without the stop token.
        thinking: whether the prompt ended in `<think>`, so that the reply begins with reasoning.
        finish_reason: "length" explains an unfinished tool call.

    Returns:
        `reasoning_content` is there only if a thinking block is, and "" if that is empty. With tool calls, `content` is
        the text around them; if one is malformed there are none, and the text is left as it is.
    """
    message: Message = {"role": "assistant"}
    thought, text = _split_thinking(text, thinking)
    if thought is not None:
        message["reasoning_content"] = thought
    message["content"] = text
    if "<tool_call>" not in text:
        return message, ""
    calls: list[dict[str, Any]] = []
    for block in _BLOCK.finditer(text):
        call = _read_call(block[1])
        if isinstance(call, str):
            return message, f"tool call {len(calls)} can't be read: {call}. The form is:\n{FORM}"
        calls.append({"id": f"call_{len(calls)}", "type": "function", "function": call})
    rest = "".join(piece for i, piece in enumerate(_BLOCK.split(text)) if i % 2 == 0 and (i == 0 or piece.strip()))
    if "<tool_call>" in rest:
        why = "the reply hit its token limit" if finish_reason == "length" else "the tag </tool_call> is missing"
        return message, f"tool call {len(calls)} is not finished: {why}. The form is:\n{FORM}"
    message["content"] = rest
    message["tool_calls"] = calls
    return message, ""


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
        return ToolCall(id, name, None, f"the arguments of {name}: expected a JSON object, got {_kind(value)}")
    return ToolCall(id, name, value)


def _split_thinking(text: str, thinking: bool) -> tuple[str | None, str]:
    """Reasoning and the text after it. A block that is not closed is all reasoning."""
    if not thinking:
        stripped = text.lstrip()
        if not stripped.startswith(_OPEN):
            return None, text
        text = stripped.removeprefix(_OPEN)
    thought, closed, rest = text.partition(_CLOSE)
    # A model may open the block that the prompt has opened already.
    return thought.removeprefix(_OPEN).strip("\n"), rest.lstrip("\n") if closed else ""


def _read_call(block: str) -> dict[str, str] | str:
    """OpenAI's `function` of a block's JSON, or what is wrong with it."""
    try:
        call = msgspec.json.decode(block)
    except JSON_ERRORS as error:
        return f"it is not valid JSON ({error})"
    if not isinstance(call, dict):
        return f"expected a JSON object, got {_kind(call)}"
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not name:
        return 'the key "name" is missing' if name is None else f'expected "name" to be a string, got {_kind(name)}'
    if not isinstance(arguments, dict):
        return f'expected "arguments" to be a JSON object, got {_kind(arguments)}'
    return {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}


def _kind(value: Any) -> str:
    names = {str: "a string", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return "an empty string" if value == "" else names.get(type(value), "a number")
