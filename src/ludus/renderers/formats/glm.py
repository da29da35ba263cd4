"""GLM 4.5 and later: a name, then `<arg_key>` and `<arg_value>` pairs, between `<tool_call>` tags."""

from __future__ import annotations

from typing import Any

from ludus.renderers.formats.base import Call, Malformed, Tools
from ludus.renderers.formats.tagged import TaggedCalls
from ludus.renderers.formats.typed import typed

_KEY, _KEY_END, _VALUE, _VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"


def _read(block: str, tools: Tools) -> list[Call]:
    head, pairs, rest = block.partition(_KEY)
    name = head.strip()
    if not name or any(character.isspace() or character in '<>{}"' for character in name):
        raise Malformed(f"expected the tool's name, got {name[:40]!r}")
    arguments: dict[str, Any] = {}
    while pairs:
        key, closed, rest = rest.partition(_KEY_END)
        if not closed:
            raise Malformed(f"the tag {_KEY_END} is missing")
        rest = rest.lstrip()
        if not rest.startswith(_VALUE):
            raise Malformed(f"expected {_VALUE} after the key {key.strip()!r}")
        value, closed, rest = rest.removeprefix(_VALUE).partition(_VALUE_END)
        if not closed:
            raise Malformed(f"the tag {_VALUE_END} of {key.strip()!r} is missing")
        arguments[key.strip()] = typed(value, tools, name, key.strip())
        between, pairs, rest = rest.partition(_KEY)
        if (between if pairs else between + rest).strip():
            raise Malformed(f"expected {_KEY} or the end, got {between.strip()[:40]!r}")
    return [Call(name, arguments)]


GLM = TaggedCalls(
    "GLM",
    "<tool_call>the tool\n<arg_key>its parameter</arg_key>\n<arg_value>value</arg_value>\n</tool_call>",
    "<tool_call>",
    "</tool_call>",
    _read,
)
