"""How code was contained, for people: a tier that contains less than it might says so wherever it is shown."""

from __future__ import annotations

from collections.abc import Iterable

LESS = {"landlock": "contains less than namespaces", "none": "contained nothing"}


def tiers_text(tiers: Iterable[str]) -> str:
    """Tiers of sandboxes as text; "" where there were none.

    >>> tiers_text(["namespaces"]), tiers_text(["landlock", "none"])
    ('namespaces', 'landlock (contains less than namespaces), none (contained nothing)')
    """
    return ", ".join(f"{tier} ({LESS[tier]})" if tier in LESS else tier for tier in tiers)
