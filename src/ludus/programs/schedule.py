"""What is a function of a step's number alone: the learning rate, and which tasks or demonstrations it uses."""

from __future__ import annotations

import math
import random
from typing import Generic, TypeVar

from ludus.seeds import derive

ItemT = TypeVar("ItemT")


def learning_rate(step: int, steps: int, peak: float, warmup: float, final: float) -> float:
    """Linear warm-up over the first share of the steps, then cosine decay to a share of the peak.

    Args:
        step: from 0.
        steps: of the whole stage.
        peak: largest learning rate.
        warmup: share of the steps over which it rises.
        final: share of the peak at the last step.

    >>> learning_rate(0, 10, 1.0, 0.2, 0.1), learning_rate(1, 10, 1.0, 0.2, 0.1)
    (0.5, 1.0)
    >>> round(learning_rate(9, 10, 1.0, 0.2, 0.1), 6)
    0.1
    """
    rising = int(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    done = (step - rising) / max(1, steps - 1 - rising)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Shuffled(Generic[ItemT]):
    """An endless stream over items, each pass in a new order; any place in it is a function of seed and position."""

    def __init__(self, items: list[ItemT], seed: int) -> None:
        self._items, self._seed = items, seed
        self._orders: dict[int, list[int]] = {}

    def at(self, position: int) -> tuple[ItemT, int]:
        """The item at a position, and how often it came before."""
        visit, index = divmod(position, len(self._items))
        if visit not in self._orders:
            order = list(range(len(self._items)))
            random.Random(derive(self._seed, "order", visit)).shuffle(order)
            self._orders = {visit: order, **{v: o for v, o in self._orders.items() if v == visit - 1}}
        return self._items[self._orders[visit][index]], visit
