"""What is a function of a step's number alone: the learning rate, and which tasks or demonstrations it uses."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
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


class Turns:
    """Who comes when, by weight and as evenly as whole turns allow: after n turns, each has had its share of n but for
    about one. Any place in it is a function of the weights alone.

    The next turn is that of the one whose middle of it is due first, the j-th of weight w at (j + 1/2) / w
    (Webster's divisor method); of several, the first.

    >>> turns = Turns([2, 1])
    >>> [turns.at(place)[0] for place in range(6)], turns.between(0, 3)
    ([0, 1, 0, 0, 1, 0], [2, 1])
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = list(weights)
        self._turns: list[tuple[int, int]] = []
        self._had = [0] * len(weights)

    def at(self, place: int) -> tuple[int, int]:
        """Whose turn it is at a place, and how many that one had before."""
        while len(self._turns) <= place:
            due = [(had + 0.5) / weight for had, weight in zip(self._had, self._weights, strict=True)]
            chosen = due.index(min(due))
            self._turns.append((chosen, self._had[chosen]))
            self._had[chosen] += 1
        return self._turns[place]

    def between(self, start: int, end: int) -> list[int]:
        """How many turns each has at the places from start up to end."""
        counts = [0] * len(self._weights)
        for place in range(start, end):
            counts[self.at(place)[0]] += 1
        return counts


class Mixed(Generic[ItemT]):
    """Several streams as one, by weight; any place in it is a function of seeds, weights and position."""

    def __init__(self, streams: Sequence[Shuffled[ItemT]], weights: Sequence[float]) -> None:
        self._streams, self._turns = streams, Turns(weights)

    def at(self, position: int) -> tuple[ItemT, int]:
        """The item at a position, and how often it came before."""
        stream, place = self._turns.at(position)
        return self._streams[stream].at(place)
