"""Harmony (gpt-oss): analysis, commentary and final channels; a call is a message to `functions.NAME`."""

from __future__ import annotations

import re

from ludus.renderers.formats.base import Call, Malformed, Tools, as_tool_calls, read_object
from ludus.renderers.formats.framed import MESSAGE, START, Framed, FramedFormat, split, unframed
from ludus.types import FinishReason, Message

_ANALYSIS, _END = f"<|channel|>analysis{MESSAGE}", "<|end|>"
_MARKS = ("<|start|>", "<|channel|>", "<|constrain|>", MESSAGE, _END, "<|call|>", "<|return|>")
# The recipient stands before the channel in the template, and after it in what the models write.
_HEADER = re.compile(
    r"\s*(?:to=(?P<to>[^\s<]+))?<\|channel\|>(?P<channel>\w+)(?: to=(?P<to_2>[^\s<]+))?\s*(?:<\|constrain\|>)?\w*\s*"
)
_FORBIDDEN = re.compile(r"<\|channel\|>(?=(?:analysis|final)<\|message\|>)")
_FORM = ' to=functions.TOOL<|channel|>commentary json<|message|>{"parameter": ...}<|call|>'


class Harmony(FramedFormat):
    """Everything before the last message of a reply is reasoning; the last one is the answer or a call."""

    calls_style = "Harmony"
    thinking_style = "<|channel|>analysis"

    def parse(
        self, text: str, *, opened: bool = False, tools: Tools = (), finish_reason: FinishReason = "stop"
    ) -> tuple[Message, str]:
        """See `ReplyFormat`."""
        *before, last = split(text, _END, _MARKS)
        if any(_channel(message)[0] not in ("analysis", "commentary") or not message.ended for message in before):
            return {"role": "assistant", "content": _raw(text)}, ""
        message: Message = {"role": "assistant"}
        channel, recipient = _channel(last)
        if channel == "analysis" and not recipient:
            before, last = [*before, last], Framed("", None, "", True)
        if before:
            message["reasoning_content"] = _reasoning(before)
        if channel == "final" and not recipient:
            message["content"] = last.body
        elif not last.text and before:
            message["content"] = ""
        elif recipient:
            try:
                message |= {"content": "", "tool_calls": as_tool_calls([_call(recipient, last, finish_reason)])}
            except Malformed as problem:
                message["content"] = _raw(last.text)
                return message, problem.explain(_FORM, finish_reason)
        else:
            message["content"] = _raw(last.text)
        return message, ""


def _channel(message: Framed) -> tuple[str, str]:
    """Channel and recipient of a message; "" where it has none."""
    match = _HEADER.fullmatch(message.header) if message.header is not None else None
    return (match["channel"], match["to"] or match["to_2"] or "") if match else ("", "")


def _reasoning(messages: list[Framed]) -> str:
    """The messages as the template writes them again, where it has room for one analysis message only."""
    text = START.join(message.text for message in messages).removesuffix(_END)
    return _allowed(text.removeprefix(_ANALYSIS))


def _call(recipient: str, message: Framed, finish_reason: FinishReason) -> Call:
    if not recipient.startswith("functions."):
        raise Malformed(f"expected to=functions.TOOL, got to={recipient}")
    if finish_reason in ("length", "cancelled"):
        raise Malformed("the token <|call|> is missing", unfinished=True)
    return Call(recipient.removeprefix("functions."), read_object(message.body))


def _raw(text: str) -> str:
    return _allowed(unframed(text, _MARKS))


def _allowed(text: str) -> str:
    """The template raises on these headers in a text; a space makes them harmless."""
    return _FORBIDDEN.sub("<|channel|> ", text)


HARMONY = Harmony()
