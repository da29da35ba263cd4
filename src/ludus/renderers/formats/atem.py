"""ATEM (Muse Glimmer): messages to oneself, to a tool and to the user; calls are XML."""

from __future__ import annotations

import re

from ludus.renderers.formats.base import Call, Malformed, Tools, as_tool_calls
from ludus.renderers.formats.framed import MESSAGE, START, Framed, FramedFormat, split, unframed
from ludus.renderers.formats.typed import typed
from ludus.types import FinishReason, Message

_END = "<|eom|>"
_SELF = f" to=self{MESSAGE}"
_MARKS = ("<|start|>", MESSAGE, _END, "<|eot|>")
_HEADER = re.compile(r"\s*to=(\S+)\s*")
_CALLS, _CALLS_END = "<atem:function_calls>", "</atem:function_calls>"
_INVOKE, _INVOKE_END = '<atem:invoke name="', "</atem:invoke>"
_PARAMETER, _PARAMETER_END = '<atem:parameter name="', "</atem:parameter>"
_FORM = (
    f' to=TOOL{MESSAGE}{_CALLS}\n{_INVOKE}TOOL">\n{_PARAMETER}its parameter">value{_PARAMETER_END}\n{_INVOKE_END}\n'
    f"{_CALLS_END}"
)


class Atem(FramedFormat):
    """Messages to oneself are reasoning, and the first in a reply; then come calls, or the answer."""

    calls_style = "ATEM"
    thinking_style = "to=self"

    def parse(
        self, text: str, *, opened: bool = False, tools: Tools = (), finish_reason: FinishReason = "stop"
    ) -> tuple[Message, str]:
        """See `ReplyFormat`."""
        messages = split(text, _END, _MARKS)
        if not all(message.ended and _recipient(message) for message in messages[:-1]):
            return {"role": "assistant", "content": unframed(text, _MARKS)}, ""
        thoughts = 0
        while thoughts < len(messages) and _recipient(messages[thoughts]) == "self":
            thoughts += 1
        message: Message = {"role": "assistant"}
        if thoughts:
            whole = START.join(one.text for one in messages[:thoughts])
            message["reasoning_content"] = whole.removeprefix(_SELF).removesuffix(_END)
        rest = messages[thoughts:]
        raw = START.join(one.text for one in rest)
        if not rest:
            message["content"] = ""
        elif len(rest) == 1 and _recipient(rest[0]) == "user":
            message["content"] = rest[0].body
        elif all(_recipient(one) not in ("", "self", "user") for one in rest):
            try:
                message |= {"content": "", "tool_calls": as_tool_calls(_calls(rest, tools))}
            except Malformed as problem:
                message["content"] = unframed(raw, _MARKS)
                return message, problem.explain(_FORM, finish_reason)
        else:
            message["content"] = unframed(raw, _MARKS)
        return message, ""


def _recipient(message: Framed) -> str:
    match = _HEADER.fullmatch(message.header) if message.header is not None else None
    return match[1] if match else ""


def _calls(messages: list[Framed], tools: Tools) -> list[Call]:
    calls: list[Call] = []
    for message in messages:
        try:
            calls.append(_call(message.body.strip(), tools))
        except Malformed as problem:
            problem.number = len(calls)
            raise
    return calls


def _call(text: str, tools: Tools) -> Call:
    if not text.startswith(_CALLS):
        raise Malformed(f"it does not begin with {_CALLS}")
    if not text.endswith(_CALLS_END):
        raise Malformed(f"the tag {_CALLS_END} is missing", unfinished=True)
    block = text.removeprefix(_CALLS).removesuffix(_CALLS_END).strip()
    if not block.startswith(_INVOKE) or not block.endswith(_INVOKE_END):
        raise Malformed(f'expected {_INVOKE}TOOL"> ... {_INVOKE_END}')
    name, _, rest = block.removeprefix(_INVOKE).removesuffix(_INVOKE_END).partition('">')
    arguments = {}
    rest = rest.lstrip()
    while rest:
        if not rest.startswith(_PARAMETER):
            raise Malformed(f"expected {_PARAMETER} or {_INVOKE_END}, got {rest[:40]!r}")
        key, _, rest = rest.removeprefix(_PARAMETER).partition('">')
        value, closed, rest = rest.partition(_PARAMETER_END)
        if not closed:
            raise Malformed(f"the tag {_PARAMETER_END} of {key!r} is missing")
        arguments[key] = typed(value, tools, name, key)
        rest = rest.lstrip()
    if not name:
        raise Malformed("the tool's name is missing")
    return Call(name, arguments)


ATEM = Atem()
