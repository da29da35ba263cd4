"""Replies that are several framed messages: a header, a mark, a body, and the next one after it."""

from __future__ import annotations

from dataclasses import dataclass

START = "<|start|>assistant"
"""Stands before each message of a reply but the first, which the prompt has begun."""
MESSAGE = "<|message|>"


@dataclass(frozen=True)
class Framed:
    """One message. `text` is all of it; `header` is None where it has no body, or one with marks in it."""

    text: str
    header: str | None
    body: str
    ended: bool


class FramedFormat:
    """What such formats share: reasoning is a message of its own, which no prompt opens and which is left out if empty."""

    def opened_by(self, prompt: str) -> bool:
        """See `ReplyFormat`."""
        return False

    def without_empty_thinking(self, text: str) -> str:
        """See `ReplyFormat`."""
        return text


def split(text: str, end: str, marks: tuple[str, ...]) -> list[Framed]:
    """The messages of a reply.

    Args:
        text: without the stop token.
        end: what ends every message but the last.
        marks: all special tokens of the frames.
    """
    return [_framed(piece, end, marks) for piece in text.split(START)]


def _framed(text: str, end: str, marks: tuple[str, ...]) -> Framed:
    header, found, body = text.partition(MESSAGE)
    ended = body.endswith(end)
    body = body.removesuffix(end)
    clean = found and not any(mark in body for mark in marks)
    return Framed(text, header if clean else None, body, ended)


def unframed(text: str, marks: tuple[str, ...]) -> str:
    """The content of a reply that is not in the format: its text, which must not look like what the template writes
    for an answer, or a recording would go on from it as if it were one."""
    return text if any(mark in text for mark in marks) else START + text
