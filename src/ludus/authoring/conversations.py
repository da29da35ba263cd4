"""Small things that are done to a conversation: where it opens, and how a text is added to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ludus.types import Message, user


def opening(messages: Sequence[Message]) -> list[Message]:
    """What comes before the first reply.

    >>> opening([user("hi"), {"role": "assistant", "content": "hello"}, user("and?")])
    [{'role': 'user', 'content': 'hi'}]
    """
    first = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    return list(messages[:first])


def with_text(messages: Sequence[Message], text: str) -> list[Message]:
    """A user's text at the end: in a message that is there, as some templates refuse two of a user in a row.

    >>> with_text([user("2 + 2?")], "Be brief.")
    [{'role': 'user', 'content': '2 + 2?\\n\\nBe brief.'}]
    """
    last = messages[-1] if messages else {}
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        return [*messages[:-1], user(f"{last['content']}\n\n{text}")]
    return [*messages, user(text)]


def same_message(one: Message, other: Message) -> bool:
    """Whether two messages say the same, whatever clients leave out, add or write in another order.

    >>> said = {"role": "assistant", "content": "hi"}
    >>> same_message(said, {**said, "reasoning_content": "a greeting", "refusal": None})
    True
    """
    return _said(one) == _said(other)


def _said(message: Message) -> tuple[Any, ...]:
    calls = [(call.get("id"), call["function"].get("name")) for call in message.get("tool_calls") or ()]
    return message["role"], message.get("content") or "", calls
