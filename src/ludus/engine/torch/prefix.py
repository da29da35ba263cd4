"""PrefixIndex: which cache slot already holds, or is about to hold, the beginning of a prompt.

The rollouts of a group share their whole prompt, and all rollouts their system message: computed once, it is copied to
the others. Beginnings are found by chained hashes of blocks of tokens, and always compared token by token.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ludus.engine.torch.cache import Slot

BLOCK = 8
"""Tokens; shorter common beginnings are not worth a copy."""


class PrefixIndex:
    """Hash of each whole number of blocks of a prompt -> a slot that begins with them."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}

    def add(self, slot: Slot, *, replace: bool) -> None:
        """Make a slot's tokens findable; `replace` puts it in place of slots that begin alike."""
        slot.prefixes = list(_hashes(slot.tokens, slot.weights))
        for prefix in slot.prefixes:
            if replace or prefix not in self._slots:
                self._slots[prefix] = slot

    def find(self, tokens: Sequence[int], weights: Hashable) -> tuple[Slot, int] | None:
        """The slot of these weights with the longest beginning in common, to the block; and the common length."""
        found = None
        for prefix in _hashes(tokens, weights):
            if prefix not in self._slots:
                break
            found = self._slots[prefix]
        if found is None or found.weights != weights:
            return None
        common = common_prefix(found.tokens, tokens)
        return (found, common) if common >= BLOCK else None

    def remove(self, slot: Slot) -> None:
        """Forget a slot."""
        for prefix in slot.prefixes:
            if self._slots.get(prefix) is slot:
                del self._slots[prefix]
        slot.prefixes = []


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:  # the usual case: one extends the other
        return length
    return next(i for i in range(length) if a[i] != b[i])


def _hashes(tokens: Sequence[int], weights: Hashable) -> Iterator[int]:
    chain = hash(weights)
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        chain = hash((chain, *tokens[end - BLOCK : end]))
        yield chain
