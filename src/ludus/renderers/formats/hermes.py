"""Hermes, Qwen2.5 and Qwen3: a JSON object between `<tool_call>` tags."""

from __future__ import annotations

from ludus.renderers.formats.base import Call, Tools, call_of, read_object
from ludus.renderers.formats.tagged import TaggedCalls


def _read(block: str, tools: Tools) -> list[Call]:
    return [call_of(read_object(block))]


HERMES = TaggedCalls(
    "Hermes",
    '<tool_call>\n{"name": "the tool", "arguments": {...}}\n</tool_call>',
    "<tool_call>",
    "</tool_call>",
    _read,
)
