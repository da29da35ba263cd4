"""Seeds are derived from names, never drawn from a shared stream.

A rollout's randomness is a function of (run seed, task, visit, sample, attempt, turn), so it does not depend on how
many rollouts ran before it, on which worker, or in which order.
"""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """A seed in [0, 2**63) from the parts, stable across processes and Python versions.

    >>> derive(0, "task-1", 0) == derive(0, "task-1", 0)
    True
    >>> derive(1, "a") == derive("1", "a")
    False
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
