"""Qwen3-Coder, Qwen3.5 and later, Nemotron 3: `<function=...>` and `<parameter=...>` between `<tool_call>` tags."""

from __future__ import annotations

from typing import Any

from ludus.renderers.formats.base import Call, Malformed, Tools
from ludus.renderers.formats.tagged import TaggedCalls
from ludus.renderers.formats.typed import typed

_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"


def _read(block: str, tools: Tools) -> list[Call]:
    block = block.strip()
    if not block.startswith(_FUNCTION):
        raise Malformed(f"it does not begin with {_FUNCTION}NAME>")
    if not block.endswith(_FUNCTION_END):
        raise Malformed(f"the tag {_FUNCTION_END} is missing")
    head, _, body = block.removeprefix(_FUNCTION).partition(">")
    name = head.strip()
    if not name or "<" in name:
        raise Malformed(f"the name after {_FUNCTION} is missing")
    rest = body.removesuffix(_FUNCTION_END).lstrip()
    arguments: dict[str, Any] = {}
    while rest:
        if not rest.startswith(_PARAMETER):
            raise Malformed(f"expected {_PARAMETER}NAME> or {_FUNCTION_END}, got {rest[:40]!r}")
        head, _, rest = rest.removeprefix(_PARAMETER).partition(">")
        value, closed, rest = rest.partition(_PARAMETER_END)
        if not closed:
            raise Malformed(f"the tag {_PARAMETER_END} of {head.strip()} is missing")
        text = value.removeprefix("\n").removesuffix("\n")
        arguments[head.strip()] = typed(text, tools, name, head.strip())
        rest = rest.lstrip()
    return [Call(name, arguments)]


QWEN_XML = TaggedCalls(
    "Qwen XML",
    "<tool_call>\n<function=the tool>\n<parameter=its parameter>\nvalue\n</parameter>\n</function>\n</tool_call>",
    "<tool_call>",
    "</tool_call>",
    _read,
)
