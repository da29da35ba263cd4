"""Messages as chat templates expect them, which is not quite what OpenAI's format says.

All want text rather than null, arguments as objects, and reasoning under a name they know. Some want more, which is
found by trying: templates of models that see images read content as a list of parts, DeepSeek's glues the arguments on
as text, Mistral's refuse call ids of any other length than nine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ludus.errors import UsageError
from ludus.renderers.parsing import arguments_of, reasoning
from ludus.types import Message

_TEXT = "Xdialect7X"
_ID_LENGTH = 9


@dataclass(frozen=True)
class Dialect:
    """What a template wants beyond what all of them do.

    Args:
        parts: content as a list of parts.
        text_arguments: arguments as JSON text.
        short_ids: call ids of nine letters and digits.
    """

    parts: bool = False
    text_arguments: bool = False
    short_ids: bool = False

    def prepare(self, message: Message) -> Message:
        """The message as the template expects it; the caller's own stays as it is."""
        changes: Message = {}
        if message.get("content") is None:
            changes["content"] = ""
        if calls := message.get("tool_calls"):
            changes["tool_calls"] = [self._call(call) for call in calls]
        if message["role"] == "assistant" and (thinking := reasoning(message)) is not None:
            changes |= {"thinking": message.get("thinking", thinking), "reasoning_content": thinking}
        if self.parts and isinstance(text := changes.get("content", message.get("content")), str):
            changes["content"] = [{"type": "text", "text": text}]
        if self.short_ids and isinstance(id := message.get("tool_call_id"), str):
            changes["tool_call_id"] = _short(id)
        return {**message, **changes} if changes else message

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        function = call.get("function")
        if not isinstance(function, dict):
            return call
        arguments = function.get("arguments")
        if not self.text_arguments:
            arguments = arguments_of(function)
        elif isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        call = (
            call
            if arguments is function.get("arguments")
            else {**call, "function": {**function, "arguments": arguments}}
        )
        return {**call, "id": _short(call["id"])} if self.short_ids and isinstance(call.get("id"), str) else call


def find_dialect(render: Callable[[list[Message]], str]) -> Dialect:
    """What a template wants of messages.

    Args:
        render: writes messages as they are, without tools. Raises UsageError.
    """
    parts = not _shows(render, Dialect()) and _shows(render, Dialect(parts=True))
    if _renders_call(render, Dialect(parts)):
        return Dialect(parts)
    for text_arguments, short_ids in ((True, False), (False, True), (True, True)):
        if _renders_call(render, dialect := Dialect(parts, text_arguments, short_ids)):
            return dialect
    return Dialect(parts)


def _shows(render: Callable[[list[Message]], str], dialect: Dialect) -> bool:
    try:
        return _TEXT in render([dialect.prepare({"role": "user", "content": _TEXT})])
    except UsageError:
        return False


def _renders_call(render: Callable[[list[Message]], str], dialect: Dialect) -> bool:
    call = {"id": "call_0", "type": "function", "function": {"name": "tool", "arguments": {"text": _TEXT}}}
    messages: list[Message] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "name": "tool", "content": "ok"},
    ]
    try:
        render([dialect.prepare(message) for message in messages])
    except UsageError:
        return False
    return True


def _short(id: str) -> str:
    if len(id) == _ID_LENGTH and id.isascii() and id.isalnum():
        return id
    return hashlib.blake2b(id.encode(errors="replace")).hexdigest()[:_ID_LENGTH]
