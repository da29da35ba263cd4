"""What a reply format is: text in, an assistant message out.

Nothing the model writes raises. A call that can't be read leaves the reply as text, with an explanation that can be
shown to the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from ludus.renderers.parsing import JSON_ERRORS, kind
from ludus.types import FinishReason, Message

Tools = Sequence[dict[str, Any]]
"""JSON schemas in OpenAI's format."""


class ReplyFormat(Protocol):
    """How one family of templates writes a reply."""

    @property
    def calls_style(self) -> str:
        """Name of the way tool calls are written, "" if they are not."""
        ...

    @property
    def thinking_style(self) -> str:
        """What opens reasoning, "" if it is not told apart from the text."""
        ...

    def opened_by(self, prompt: str) -> bool:
        """Whether a prompt ends with what opens reasoning, so that the reply begins inside of it."""
        ...

    def without_empty_thinking(self, text: str) -> str:
        """A reply's text without the empty thinking block at its beginning, if it has one."""
        ...

    def parse(
        self, text: str, *, opened: bool = False, tools: Tools = (), finish_reason: FinishReason = "stop"
    ) -> tuple[Message, str]:
        """The assistant message in a reply's text, and why a tool call in it was malformed, or "".

        Args:
            text: without the stop token.
            opened: whether the prompt has opened the reasoning already.
            tools: say of which type an argument is, where the format does not.
            finish_reason: "length" explains an unfinished tool call.

        Returns:
            `reasoning_content` is there only if a thinking block is, and "" if that is empty. With tool calls,
            `content` is the text around them; if one is malformed there are none, and the text is left as it is.
        """
        ...


class Call(NamedTuple):
    """A tool call as the model wrote it."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


class CallSyntax(Protocol):
    """A way to write tool calls into a reply's text."""

    @property
    def name(self) -> str:
        """As the documentation lists it."""
        ...

    @property
    def form(self) -> str:
        """What a call looks like, shown to the model that wrote a malformed one."""
        ...

    def read(self, text: str, tools: Tools) -> tuple[str, list[Call]]:
        """The text around the calls, and the calls; none where the text has no beginning of one. Raises Malformed."""
        ...


class Malformed(Exception):
    """A tool call that can't be read.

    Args:
        why: what is wrong with it.
        number: of the call in its reply, from 0.
        unfinished: whether its end is missing.
    """

    def __init__(self, why: str, number: int = 0, *, unfinished: bool = False) -> None:
        super().__init__(why)
        self.why, self.number, self.unfinished = why, number, unfinished

    def explain(self, form: str, finish_reason: FinishReason) -> str:
        """For the model that wrote it."""
        if not self.unfinished:
            return f"tool call {self.number} can't be read: {self.why}. The form is:\n{form}"
        why = "the reply hit its token limit" if finish_reason == "length" else self.why
        return f"tool call {self.number} is not finished: {why}. The form is:\n{form}"


def as_tool_calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls in OpenAI's format."""
    return [
        {
            "id": call.id or f"call_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for i, call in enumerate(calls)
    ]


def read_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises Malformed."""
    try:
        value = msgspec.json.decode(text)
    except JSON_ERRORS as error:
        raise Malformed(f"it is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise Malformed(f"expected a JSON object, got {kind(value)}")
    return value


def call_of(value: Any, arguments_key: str = "arguments") -> Call:
    """The call in a JSON object with a name and arguments. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"expected a JSON object, got {kind(value)}")
    name, arguments, id = value.get("name"), value.get(arguments_key, {}), value.get("id")
    if name is None:
        raise Malformed('the key "name" is missing')
    if not isinstance(name, str) or not name:
        raise Malformed(f'expected "name" to be a string, got {kind(name)}')
    if not isinstance(arguments, dict):
        raise Malformed(f'expected "{arguments_key}" to be a JSON object, got {kind(arguments)}')
    return Call(name, arguments, id if isinstance(id, str) and id else None)
