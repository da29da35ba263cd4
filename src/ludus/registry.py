"""Find things by name through entry points; built-ins are found through the same table as plugins."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

ENVIRONMENTS = "ludus.environments"
ADAPTERS = "ludus.adapters"
"""Other people's environments, named PREFIX:REST; the entry is called with REST."""


def entries(group: str) -> dict[str, EntryPoint]:
    """All registered names of a group, built-ins and installed plugins alike."""
    return {entry.name: entry for entry in entry_points(group=group)}
