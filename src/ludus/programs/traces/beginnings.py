"""Which conversations are the beginning of longer ones, as in logs that have a line for each call of a model.

A call's line holds all that was said before it, so an agent's work of ten calls is ten lines, of which the last one has
everything. In memory stays a mark of four bytes for each message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from ludus.programs.traces.forms import Unusable

SAME = "the same as an earlier one"
PART = "the beginning of a longer one, as in logs with a line for each call"
MARK_BYTES, NUMBER_BYTES, SIZE_BYTES = 4, 8, 3
_encode = msgspec.json.Encoder().encode


class Beginnings:
    """Conversations that were seen, by how they open."""

    def __init__(self) -> None:
        self._seen: dict[int, bytes] = {}
        """Of each opening, for every conversation: its number, how many bytes of marks follow, and those."""

    def add(self, opening: int, rest: Sequence[Any], number: int) -> list[int]:
        """Remember a conversation.

        Args:
            opening: a hash of its messages before the first reply.
            rest: the messages after those.
            number: of this conversation, of 64 bits.

        Returns:
            The numbers of those that are beginnings of it, which are remembered no longer.

        Raises:
            Unusable: it was seen before, or is the beginning of one that was.
        """
        marks = _marks(rest)
        kept, parts = [], []
        for other, others in _unpacked(self._seen.get(opening, b"")):
            if others.startswith(marks):
                raise Unusable(SAME if others == marks else PART)
            if marks.startswith(others):
                parts.append(other)
            else:
                kept.append(_packed(other, others))
        self._seen[opening] = b"".join([*kept, _packed(number, marks)])
        return parts


def _marks(messages: Sequence[Any]) -> bytes:
    """A mark of each message and of all before it."""
    so_far = blake2b(digest_size=MARK_BYTES)
    marks = []
    for message in messages:
        so_far.update(_encode(message))
        marks.append(so_far.digest())
    return b"".join(marks)


def _packed(number: int, marks: bytes) -> bytes:
    return number.to_bytes(NUMBER_BYTES) + len(marks).to_bytes(SIZE_BYTES) + marks


def _unpacked(packed: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(packed):
        start = at + NUMBER_BYTES + SIZE_BYTES
        end = start + int.from_bytes(packed[at + NUMBER_BYTES : start])
        yield int.from_bytes(packed[at : at + NUMBER_BYTES]), packed[start:end]
        at = end
