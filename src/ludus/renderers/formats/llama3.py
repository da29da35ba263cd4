"""Llama 3.1 and later: the reply is one JSON object with a name and parameters, and nothing else."""

from __future__ import annotations

import re

import msgspec

from ludus.renderers.formats.base import Call, Malformed, Tools, call_of
from ludus.renderers.parsing import JSON_ERRORS

_PREFIX = "<|python_tag|>"  # some of the models write it before a call
_BEGINS = re.compile(r'\{\s*"name"\s*:')


class Llama3Calls:
    """A call is a reply that begins like one; other JSON is the answer."""

    name = "Llama 3"
    form = '{"name": "the tool", "parameters": {...}}'

    def read(self, text: str, tools: Tools) -> tuple[str, list[Call]]:
        """See `CallSyntax`."""
        body = text.strip().removeprefix(_PREFIX).lstrip()
        if body and '{"name":'.startswith("".join(body.split())):  # as long as it is being written, nobody can tell
            raise Malformed("the reply ends where its JSON begins", unfinished=True)
        if not _BEGINS.match(body):
            return text, []
        try:
            value = msgspec.json.decode(body)
        except JSON_ERRORS as error:
            why = f"expected one JSON object and nothing after it, but it is not valid JSON ({error})"
            raise Malformed(why, unfinished="truncated" in str(error)) from None
        if "parameters" not in value and "arguments" not in value:
            return text, []
        return "", [call_of(value, "parameters" if "parameters" in value else "arguments")]


LLAMA3 = Llama3Calls()
