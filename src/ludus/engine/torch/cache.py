"""KVCache: keys and values of the tokens that requests have already run through the decoder.

A slot holds one sequence. It remembers its tokens, its session and the weights that filled it, and stays warm after
its request has ended, so that the session's next request computes only what is new. The least recently used warm slot
goes first. Slots and their common length grow on demand up to a memory budget. Left out: sharing prefixes between
sessions, paging.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ludus.engine.torch.config import DecoderConfig

MIN_LENGTH = 64
MIN_SLOTS = 8


@dataclass(eq=False, slots=True)
class Slot:
    """One sequence's place in the cache."""

    index: int
    session: str
    weights: Hashable
    """Which weights filled it; keys and values of other weights are never reused."""
    tokens: list[int] = field(default_factory=list)
    """Whose keys and values it holds; up to date while it is warm."""
    busy: bool = True
    used: int = 0
    """When it was last parked, in calls of `park`."""


class KVCache:
    """Keys and values per layer, shape [slots, kv heads, length, head size] each.

    Args:
        config: of the decoder.
        device: where the cache lives.
        dtype: of keys and values.
        budget_bytes: most memory to hold, in bytes.
    """

    def __init__(self, config: DecoderConfig, device: torch.device, dtype: torch.dtype, budget_bytes: int) -> None:
        self._device, self._dtype = device, dtype
        self._heads, self._size = config.num_key_value_heads, config.head_dim
        self._context = config.max_position_embeddings
        position_bytes = 2 * config.num_hidden_layers * self._heads * self._size * dtype.itemsize
        self._budget = budget_bytes // position_bytes
        """Positions of all slots together."""
        self._num_layers = config.num_hidden_layers
        self.clear()

    def clear(self) -> None:
        """Forget everything and give the memory back; slots in other hands become worthless."""
        self.keys = [self._new(0, 0) for _ in range(self._num_layers)]
        self.values = [self._new(0, 0) for _ in range(self._num_layers)]
        self.num_slots, self.length = 0, MIN_LENGTH
        self._slots: dict[int, Slot] = {}
        self._free: list[int] = []
        self._clock = 0
        self._weights: Hashable = None

    def acquire(self, session: str, tokens: Sequence[int], weights: Hashable) -> tuple[Slot, int] | None:
        """A slot for a request, and how many of its first tokens it already holds: at least one is left to compute.

        Returns:
            None where every slot is busy and the budget allows no more.
        """
        if weights != self._weights:
            self._weights = weights
            for slot in self._warm():
                self.free(slot)
        if session:
            matches = [(_common_prefix(s.tokens, tokens), -s.index, s) for s in self._warm() if s.session == session]
            if matches:
                common, _, slot = max(matches, key=lambda match: match[:2])
                slot.busy = True
                return slot, min(common, len(tokens) - 1)
        if not self._free and not self._add_slots():
            warm = self._warm()
            if not warm:
                return None
            self.free(min(warm, key=lambda s: (s.used, s.index)))
        slot = Slot(heapq.heappop(self._free), session, weights)
        self._slots[slot.index] = slot
        return slot, 0

    def reserve(self, length: int) -> bool:
        """Make room for sequences of this length; warm slots are given up for it where the budget asks.

        Returns:
            False where the busy slots alone would overrun the budget.
        """
        if length <= self.length:
            return True
        generous = min(self._context, 1 << (length - 1).bit_length())
        for target in (generous, length):
            if self.num_slots * target <= self._budget:
                self._resize(self.num_slots, target)
                return True
        room = self._budget // length
        warm = sorted(self._warm(), key=lambda s: (s.used, s.index))
        excess = len(self._slots) - room
        if excess > len(warm):
            return False
        for slot in warm[: max(excess, 0)]:
            self.free(slot)
        self._resize(min(room, self.num_slots), length)
        return True

    def park(self, slot: Slot, tokens: list[int]) -> None:
        """Keep a slot warm for its session's next request.

        Args:
            slot: no longer in use.
            tokens: whose keys and values it holds.
        """
        if not slot.session or slot.weights != self._weights:
            self.free(slot)
            return
        self._clock += 1
        slot.tokens, slot.busy, slot.used = tokens, False, self._clock

    def free(self, slot: Slot) -> None:
        """Give up a slot and what it holds."""
        del self._slots[slot.index]
        heapq.heappush(self._free, slot.index)

    def release(self, session: str) -> None:
        """Give up the warm slots of a session that has ended; a busy one is given up when its request ends."""
        for slot in list(self._slots.values()):
            if slot.session == session:
                slot.session = ""
                if not slot.busy:
                    self.free(slot)

    def write(self, layer_index: int, places_N: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> None:
        """Store new keys and values.

        Args:
            layer_index: of the decoder layer.
            places_N: from `places`.
            k_TKD: keys.
            v_TKD: values.
        """
        for cached, new in ((self.keys[layer_index], k_TKD), (self.values[layer_index], v_TKD)):
            cached.view(-1, self._size).index_copy_(0, places_N, new.reshape(-1, self._size))

    def places(self, slots_T: Tensor, positions_T: Tensor) -> Tensor:
        """Of each new token and head, the row of a cache seen as [slots * heads * length, size]; shape [T * heads]."""
        heads_TK = slots_T[:, None] * self._heads + torch.arange(self._heads, device=slots_T.device)
        return (heads_TK * self.length + positions_T[:, None]).flatten()

    def _warm(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if not slot.busy]

    def _add_slots(self) -> bool:
        target = min(max(MIN_SLOTS, 2 * self.num_slots), self._budget // self.length)
        if target <= self.num_slots:
            return False
        self._resize(target, self.length)
        return True

    def _resize(self, num_slots: int, length: int) -> None:
        """Change the number of slots and their length; fewer slots than before are packed to the front."""
        live = sorted(self._slots.values(), key=lambda slot: slot.index)
        old = [slot.index for slot in live]
        if num_slots < self.num_slots:
            for index, slot in enumerate(live):
                slot.index = index
        self._slots = {slot.index: slot for slot in live}
        self._free = [index for index in range(num_slots) if index not in self._slots]
        new = list(self._slots)
        for layers in (self.keys, self.values):
            for layer, cached in enumerate(layers):
                layers[layer] = self._new(num_slots, length)
                if old:
                    layers[layer][new, :, : self.length] = cached[old, :, : self.length]
        self.num_slots, self.length = num_slots, length

    def _new(self, num_slots: int, length: int) -> Tensor:
        # zeros, not empty: masked positions are multiplied by 0, and 0 * NaN would be NaN
        return torch.zeros(num_slots, self._heads, length, self._size, device=self._device, dtype=self._dtype)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    if a == b[: len(a)]:  # the usual case: the conversation went on
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
