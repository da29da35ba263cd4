"""The conversations that a chat template is tried with, to see what it writes."""

from __future__ import annotations

from typing import Any

from ludus.types import Message

# No template contains these, trims them or rewrites them.
THOUGHT, TEXT, TOOL, VALUE = "Xthought7X", "Xtext7X", "Xtool7X", "Xvalue7X"

QUESTION: list[Message] = [{"role": "user", "content": "hi"}]
PROBE_TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "A tool.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string", "description": "A text."}},
                "required": ["text"],
            },
        },
    },
)


def called(*arguments: dict[str, Any]) -> Message:
    """An assistant message that calls the tool, once for each object of arguments."""
    calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": TOOL, "arguments": one}}
        for i, one in enumerate(arguments)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


ANSWER: Message = {"role": "assistant", "content": TEXT}
CALL = called({"text": VALUE})
RESULT: Message = {"role": "tool", "tool_call_id": "call_0", "name": TOOL, "content": "ok"}
THOUGHTFUL: tuple[Message, ...] = ({**ANSWER, "reasoning_content": THOUGHT}, {**CALL, "reasoning_content": THOUGHT})
REPLIES: tuple[Message, ...] = (
    ANSWER,
    CALL,
    *THOUGHTFUL,
    {**CALL, "content": TEXT},
    called({"text": VALUE, "number": 3}, {"flag": True, "items": [1, "two"]}),
)
