"""Which tiers this machine can do: found out by making a sandbox of each, not by reading version numbers."""

from __future__ import annotations

import logging

import msgspec

from ludus.errors import SandboxUnavailable
from ludus.sandbox.host import zygote
from ludus.sandbox.spec import SandboxSpec
from ludus.sandbox.stream import Stream

log = logging.getLogger(__name__)

CONTAINING = ("namespaces", "landlock")
"""Best first."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What sandboxes of this machine can do."""

    tier: str | None
    """The best tier that works; None where code can't be contained."""
    problems: dict[str, str]
    """Why a better tier does not work, by tier."""
    uncounted: list[str]
    """What no control group counts here: "memory" has a limit for each process and is watched ten times a second
    instead of being limited by the kernel for all together; "pids" is limited for each user id instead."""


_found: Capabilities | None = None


async def probe() -> Capabilities:
    """Make a sandbox of each tier, best first, until one works. Remembered."""
    global _found
    if _found is None:
        problems: dict[str, str] = {}
        for tier in CONTAINING:
            try:
                stream, first = await Stream.open(zygote(tier), SandboxSpec())
            except SandboxUnavailable as error:
                problems[tier] = str(error)
                log.warning("%s", error)
                continue
            await stream.end()
            _found = Capabilities(tier=tier, problems=problems, uncounted=list(first.get("uncounted", ())))
            break
        else:
            return Capabilities(tier=None, problems=problems, uncounted=[])
    return _found


async def best() -> str:
    """The best tier that works. Raises SandboxUnavailable where none does."""
    found = await probe()
    if found.tier is None:
        why = "; ".join(found.problems.values())
        raise SandboxUnavailable(f"this machine can't contain code: {why}. Code you trust runs with tier='none'")
    return found.tier
