"""LFM2: a list of Python calls, `[search(query='x', limit=3)]`, between two special tokens."""

from __future__ import annotations

from ludus.renderers.formats.base import Call, Malformed, Tools
from ludus.renderers.formats.literals import Literals
from ludus.renderers.formats.tagged import TaggedCalls


def _read(block: str, tools: Tools) -> list[Call]:
    text = Literals(block, ("'", '"'), escapes=True)
    calls: list[Call] = []
    try:
        text.expect("[")
        while not text.take("]"):
            if calls:
                text.expect(",")
            name = text.word("()[]{},='\"")
            text.expect("(")
            calls.append(Call(name, text.mapping("=", ")")))
        text.take("")
    except RecursionError:
        raise Malformed("it is nested too deeply", len(calls)) from None
    except Malformed as problem:
        problem.number = len(calls)
        raise
    if not calls or text.at < len(block):
        raise Malformed("expected one list of calls and nothing after it", len(calls))
    return calls


LFM = TaggedCalls(
    "LFM2",
    "<|tool_call_start|>[the_tool(parameter='text', other=1)]<|tool_call_end|>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
    _read,
)
