"""`Finding`: what one conformance check found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    >>> str(Finding("splits", None, "there is one split"))
    'n/a   splits: there is one split'
    """

    name: str
    ok: bool | None
    """None: the check does not apply."""
    detail: str = ""
    """The figures; for a failure what is wrong, with the values, and what to do."""

    def __str__(self) -> str:
        word = "n/a " if self.ok is None else "ok  " if self.ok else "FAIL"
        return f"{word}  {self.name}: {self.detail}"
