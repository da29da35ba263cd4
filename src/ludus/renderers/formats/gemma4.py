"""Gemma 4: `call:search{query:<|"|>x<|"|>,limit:3}` between special tokens, with strings between special tokens too."""

from __future__ import annotations

from ludus.renderers.formats.base import Call, Malformed, Tools
from ludus.renderers.formats.literals import Literals
from ludus.renderers.formats.tagged import TaggedCalls

_CALL = "call:"


def _read(block: str, tools: Tools) -> list[Call]:
    text = Literals(block, ('<|"|>',), escapes=False)
    text.expect(_CALL)
    name = text.word("{}[](),:")
    text.expect("{")
    try:
        arguments = text.mapping(":", "}")
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    text.take("")
    if text.at < len(block):
        raise Malformed(f"expected one call and nothing after it, got {block[text.at : text.at + 20]!r}")
    return [Call(name, arguments)]


GEMMA4 = TaggedCalls(
    "Gemma 4",
    '<|tool_call>call:the_tool{parameter:<|"|>text<|"|>,other:1}<tool_call|>',
    "<|tool_call>",
    "<tool_call|>",
    _read,
)
