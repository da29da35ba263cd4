"""KVCache: keys and values of the tokens that requests have already run through the decoder.

A slot holds one sequence. It stays warm after its request has ended, so that the session's next request computes only
what is new; other sessions copy the beginning they share with it. The least recently used warm slot goes first. Slots
and their common length grow on demand up to a memory budget. Left out: paging.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.prefix import BLOCK, PrefixIndex, common_prefix
from ludus.engine.torch.weights import WeightsKey

MIN_LENGTH = 64
MIN_SLOTS = 8


@dataclass(eq=False, slots=True)
class Slot:
    """One sequence's place in the cache."""

    index: int
    session: str
    weights: WeightsKey
    """Which weights fill it; keys and values of other weights are never reused."""
    tokens: list[int]
    """Its request's tokens, so far."""
    num_cached: int = 0
    """Of how many first tokens it holds keys and values."""
    busy: bool = True
    ended: bool = False
    """Whether its session has ended while it was busy."""
    used: int = 0
    """When it was last parked, in calls of `park`."""
    prefixes: list[int] = field(default_factory=list)
    """Under which hashes the prefix index may know it."""


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
        self._num_layers = config.num_hidden_layers
        self._choices = config.routing_width
        position_bytes = 2 * self._num_layers * self._heads * self._size * dtype.itemsize + 2 * self._choices
        self._budget = budget_bytes // position_bytes
        """Positions of all slots together."""
        self.clear()

    def clear(self) -> None:
        """Forget everything and give the memory back; slots in other hands become worthless."""
        self.keys = [self._new(0, 0) for _ in range(self._num_layers)]
        self.values = [self._new(0, 0) for _ in range(self._num_layers)]
        self.routing = self._new_routing(0, 0)
        """Which experts each cached token went to: int16 [slots, length, layers with experts * experts per token]."""
        self.num_slots, self.length = 0, MIN_LENGTH
        self._slots: dict[int, Slot] = {}
        self._of_session: dict[str, list[Slot]] = {}
        self._free: list[int] = []
        self._clock = 0
        self._newest: dict[str, WeightsKey] = {}
        self._prefixes = PrefixIndex()
        self._copies: list[tuple[Slot, int, int]] = []
        """To do before the next forward: (to, from slot index, number of positions)."""

    def acquire(self, session: str, tokens: list[int], weights: WeightsKey) -> Slot | None:
        """A slot for a request; `num_cached` of its first tokens need not be computed, at most all but one.

        Returns:
            None where the request has to wait: every slot is busy and the budget allows no more, or a running request
            is about to compute a beginning that they share.
        """
        if self._newest.get(weights.name) != weights:
            self._newest[weights.name] = weights
            for stale in self._warm():
                if self._is_stale(stale):
                    self.free(stale)
        slot = self._own(session, tokens, weights)
        if slot is not None:
            return slot
        donor, common = self._prefixes.find(tokens, weights) or (None, 0)
        ready = 0 if donor is None else min(common, donor.num_cached)
        if common - ready >= BLOCK:
            return None
        slot = self._fresh(session, tokens, weights)
        if slot is not None:
            if donor is not None and ready >= BLOCK:
                self._promise(slot, donor, min(ready, len(tokens) - 1))
            self._prefixes.add(slot, replace=False)
        return slot

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
        warm = sorted(self._warm(), key=lambda s: s.used)
        excess = len(self._slots) - room
        if excess > len(warm):
            return False
        for slot in warm[: max(excess, 0)]:
            self.free(slot)
        self._resize(min(room, self.num_slots), length)
        return True

    def filled(self, slot: Slot) -> None:
        """The slot now holds its request's whole prompt: others may copy from it."""
        if not self._is_stale(slot):
            self._prefixes.add(slot, replace=True)

    def park(self, slot: Slot) -> None:
        """Keep a slot warm for its session's next request."""
        if not slot.session or slot.ended or self._is_stale(slot):
            self.free(slot)
            return
        self._clock += 1
        slot.tokens = slot.tokens[: slot.num_cached]
        slot.busy, slot.used = False, self._clock

    def free(self, slot: Slot) -> None:
        """Give up a slot and what it holds."""
        self._prefixes.remove(slot)
        self._copies = [copy for copy in self._copies if copy[0] is not slot]
        del self._slots[slot.index]
        self._of_session[slot.session].remove(slot)
        if not self._of_session[slot.session]:
            del self._of_session[slot.session]
        heapq.heappush(self._free, slot.index)

    def release(self, session: str) -> None:
        """Give up the warm slots of a session that has ended; a busy one is given up when its request ends."""
        for slot in self._of_session.get(session, [])[:]:
            if slot.busy:
                slot.ended = True
            else:
                self.free(slot)

    def copy_prefixes(self) -> None:
        """Copy the beginnings that `acquire` promised; to be called before each forward."""
        if not self._copies:
            return
        to = [slot.index for slot, _, _ in self._copies]
        source = [index for _, index, _ in self._copies]
        length = max(num for _, _, num in self._copies)  # beyond its own number, a slot is overwritten or masked
        self._copies = []
        for cached in (*self.keys, *self.values):
            cached[to, :, :length] = cached[source, :, :length]
        if self._choices:
            self.routing[to, :length] = self.routing[source, :length]

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

    def _is_stale(self, slot: Slot) -> bool:
        """Whether newer weights have taken the name of those that filled it."""
        return self._newest.get(slot.weights.name) != slot.weights

    def _own(self, session: str, tokens: list[int], weights: WeightsKey) -> Slot | None:
        """The session's warm slot with most in common."""
        warm = self._of_session.get(session, ()) if session else ()
        matches = [slot for slot in warm if not slot.busy and slot.weights == weights]
        if not matches:
            return None
        common, slot = max(
            ((common_prefix(slot.tokens, tokens), slot) for slot in matches), key=lambda m: (m[0], -m[1].index)
        )
        self._prefixes.remove(slot)
        slot.tokens, slot.busy, slot.num_cached = tokens, True, min(common, len(tokens) - 1)
        return slot

    def _fresh(self, session: str, tokens: list[int], weights: WeightsKey) -> Slot | None:
        """An empty slot: a free one, a new one, or the least recently used warm one."""
        if not self._free and not self._add_slots():
            warm = self._warm()
            if not warm:
                return None
            self.free(min(warm, key=lambda slot: slot.used))
        slot = Slot(heapq.heappop(self._free), session, weights, tokens)
        self._slots[slot.index] = slot
        self._of_session.setdefault(session, []).append(slot)
        return slot

    def _promise(self, slot: Slot, donor: Slot, length: int) -> None:
        """Have a slot begin as its donor does."""
        if any(to is donor for to, _, _ in self._copies):
            self.copy_prefixes()  # the donor's own beginning is still only a promise
        slot.num_cached = length
        self._copies.append((slot, donor.index, length))

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
        self.copy_prefixes()
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
        routing, self.routing = self.routing, self._new_routing(num_slots, length)
        if old and self._choices:
            self.routing[new, : self.length] = routing[old, : self.length]
        self.num_slots, self.length = num_slots, length

    def _new_routing(self, num_slots: int, length: int) -> Tensor:
        return torch.zeros(num_slots, length, self._choices, device=self._device, dtype=torch.int16)

    def _new(self, num_slots: int, length: int) -> Tensor:
        # zeros, not empty: masked positions are multiplied by 0, and 0 * NaN would be NaN
        return torch.zeros(num_slots, self._heads, length, self._size, device=self._device, dtype=self._dtype)
