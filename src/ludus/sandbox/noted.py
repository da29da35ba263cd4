"""Which tiers contained what ran in a rollout: noted where sandboxes are made, whoever makes them.

Environments, tools and scorers make sandboxes in their own ways. A record that named only those that an author remembered
to mention could hide one that contained less; so it is the context of the rollout that remembers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_noted: ContextVar[set[str] | None] = ContextVar("tiers of sandboxes", default=None)


@contextmanager
def noting_tiers() -> Iterator[set[str]]:
    """Fills with the tier of each sandbox that is made in the block, by the tasks and threads that it starts too."""
    tiers: set[str] = set()
    token = _noted.set(tiers)
    try:
        yield tiers
    finally:
        _noted.reset(token)


def note_tier(tier: str) -> None:
    """A sandbox was made that is contained like this."""
    tiers = _noted.get()
    if tiers is not None:
        tiers.add(tier)
