"""Mistral: `[TOOL_CALLS]`, then a JSON list of calls; from tokenizer version 11 on, `NAME[ARGS]{...}` for each call."""

from __future__ import annotations

from typing import Any

import msgspec

from ludus.renderers.formats.base import Call, Malformed, Tools, call_of, read_object
from ludus.renderers.parsing import JSON_ERRORS, kind

_OPEN, _ARGUMENTS, _ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


class MistralList:
    """All calls of a reply in one JSON list, at its end."""

    name = "Mistral"
    form = f'{_OPEN} [{{"name": "the tool", "arguments": {{...}}}}]'

    def read(self, text: str, tools: Tools) -> tuple[str, list[Call]]:
        """See `CallSyntax`."""
        content, opened, body = text.partition(_OPEN)
        if not opened:
            return text, []
        try:
            value: Any = msgspec.json.decode(body)
        except JSON_ERRORS as error:
            why = f"it is not valid JSON ({error})"
            raise Malformed(why, unfinished="truncated" in str(error)) from None
        if not isinstance(value, list) or not value:
            raise Malformed(f"expected a JSON list of calls, got {'nothing in it' if value == [] else kind(value)}")
        calls: list[Call] = []
        for item in value:
            try:
                calls.append(call_of(item))
            except Malformed as problem:
                problem.number = len(calls)
                raise
        return content, calls


class MistralArguments:
    """`[TOOL_CALLS]` before each call, `[ARGS]` between its name and its arguments."""

    name = "Mistral v11"
    form = f"{_OPEN}the tool{_ARGUMENTS}{{...}}"

    def read(self, text: str, tools: Tools) -> tuple[str, list[Call]]:
        """See `CallSyntax`."""
        content, *blocks = text.split(_OPEN)
        calls: list[Call] = []
        for block in blocks:
            head, separated, body = block.partition(_ARGUMENTS)
            name, _, id = head.partition(_ID)
            if not separated:
                raise Malformed(f"{_ARGUMENTS} is missing", len(calls), unfinished=True)
            if not name.strip():
                raise Malformed("the tool's name is missing", len(calls))
            try:
                arguments = read_object(body)
            except Malformed as problem:
                problem.number = len(calls)
                raise
            calls.append(Call(name.strip(), arguments, id.strip() or None))
        return content if calls else text, calls


MISTRAL = MistralList()
MISTRAL_V11 = MistralArguments()
