"""DeepSeek V3 and R1: calls between full-width markers, the arguments as JSON in a fence (V3.1: without one)."""

from __future__ import annotations

from ludus.renderers.formats.base import Call, Malformed, Tools, read_object
from ludus.renderers.formats.tagged import TaggedCalls

_CALL, _CALL_END, _SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_FENCE, _FENCE_END = "```json", "```"


def _fenced(head: str, body: str) -> Call:
    """`function<sep>NAME`, then JSON in a fence."""
    name, opened, text = body.partition(_FENCE)
    text = text.rstrip()
    if not opened or not text.endswith(_FENCE_END):
        raise Malformed(f"the arguments do not stand between {_FENCE} and {_FENCE_END}")
    return Call(name.strip(), read_object(text.removesuffix(_FENCE_END)))


def _bare(head: str, body: str) -> Call:
    """`NAME<sep>`, then JSON."""
    return Call(head.strip(), read_object(body))


def _syntax(name: str, inside: str, bare: bool) -> TaggedCalls:
    def read(block: str, tools: Tools) -> list[Call]:
        calls: list[Call] = []
        while block.strip():
            before, opened, rest = block.partition(_CALL)
            one, closed, block = rest.partition(_CALL_END)
            if before.strip() or not opened or not closed:
                raise Malformed(f"expected {_CALL} ... {_CALL_END}", len(calls))
            head, separated, body = one.partition(_SEPARATOR)
            if not separated:
                raise Malformed(f"{_SEPARATOR} is missing", len(calls))
            try:
                call = _bare(head, body) if bare else _fenced(head, body)
            except Malformed as problem:
                problem.number += len(calls)
                raise
            if not call.name:
                raise Malformed("the tool's name is missing", len(calls))
            calls.append(call)
        return calls

    return TaggedCalls(name, f"{_CALLS}{_CALL}{inside}{_CALL_END}{_CALLS_END}", _CALLS, _CALLS_END, read)


DEEPSEEK_V3 = _syntax("DeepSeek V3", f"function{_SEPARATOR}the tool\n{_FENCE}\n{{...}}\n{_FENCE_END}", bare=False)
DEEPSEEK_V3_1 = _syntax("DeepSeek V3.1", f"the tool{_SEPARATOR}{{...}}", bare=True)
