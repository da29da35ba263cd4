"""What the Open Reward Standard says here: requests as its clients send them, prompts and results as blocks of text.

There an agent acts through tools alone. So the environment's tools are joined by one more, for a reply in words.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from ludus.errors import UsageError
from ludus.renderers.parsing import tool_calls_of
from ludus.serve.episode import Turn
from ludus.types import Message, Reply

REPLY = "reply"
"""The tool for a reply in words, where the environment has none of that name."""
PIECE = 4096
"""Characters of a result in one event."""


class Create(BaseModel):
    """Begin an episode: of a task, or of the one at a place."""

    model_config = ConfigDict(extra="forbid")

    env_name: str | None = None
    task_spec: dict[str, Any] | None = None
    split: str | None = None
    index: int | None = None
    secrets: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Create:
        by_place = self.split is not None and self.index is not None
        if (self.task_spec is not None) == by_place:
            raise ValueError("expected either task_spec, or split and index")
        return self


class ToolCall(BaseModel):
    """A call, or with `task_id` the same one again."""

    model_config = ConfigDict(extra="forbid")

    name: str
    input: dict[str, Any]
    task_id: str | None = None


def reply_tool(names: Collection[str]) -> str:
    """What the tool for a reply in words is called beside others."""
    name = REPLY
    while name in names:
        name += "_"
    return name


def tools_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tools in the standard's format: the environment's own, and the one for a reply in words."""
    functions = [schema["function"] for schema in schemas]
    tools = [
        {
            "name": function["name"],
            "description": function.get("description", ""),
            "input_schema": function.get("parameters"),
        }
        for function in functions
    ]
    words = {"type": "object", "properties": {"content": {"type": "string"}}, "required": ["content"]}
    name = reply_tool([function["name"] for function in functions])
    return {"tools": [*tools, {"name": name, "description": "Reply in words.", "input_schema": words}]}


def reply_of(call: ToolCall, schemas: Sequence[dict[str, Any]], number: int) -> Reply:
    """The reply that a call of a tool is. Raises UsageError, for the agent, for what is no call of one."""
    names = [schema["function"]["name"] for schema in schemas]
    if call.name in names:
        function = {"name": call.name, "arguments": json.dumps(call.input)}
        called = {"id": f"call_{number}", "type": "function", "function": function}
        message: Message = {"role": "assistant", "content": "", "tool_calls": [called]}
        return Reply(message, tool_calls_of(message), "tool_calls")
    words = reply_tool(names)
    if call.name != words:
        raise UsageError(f"{call.name!r} is not a valid tool; the tools are: {', '.join([*names, words])}")
    content = call.input.get("content")
    if not isinstance(content, str) or len(call.input) > 1:
        raise UsageError(f'expected the input of {words} to be {{"content": text}}, got {str(call.input)[:200]}')
    return Reply({"role": "assistant", "content": content})


def blocks_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as blocks of text that say whose they are."""
    return [
        {"type": "text", "text": text, "detail": {"role": message["role"]}}
        for message in messages
        if isinstance(text := message.get("content"), str) and text
    ]


def output_of(turn: Turn) -> dict[str, Any]:
    """What a call brings: the messages that follow; at the end of the episode its reward and metrics too."""
    over = turn.rollout
    return {
        "blocks": blocks_of(turn.messages),
        "metadata": None if over is None else {"stop": over.stop, "metrics": over.metrics},
        "reward": None if over is None else over.reward,
        "finished": over is not None,
    }


def pieces(text: str) -> Iterator[str]:
    """JSON text in pieces short enough for an event. None begins with a space, which clients of the standard drop."""
    start = 0
    while start < len(text):
        end = min(start + PIECE, len(text))
        while end < len(text) and text[end] == " ":
            end += 1
        yield text[start:end]
        start = end
