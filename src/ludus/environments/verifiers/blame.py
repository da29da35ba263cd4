"""What went wrong in the other process, as errors of ours."""

from __future__ import annotations

from typing import Any

from ludus.errors import ConfigError, RolloutError, UnknownName, UsageError


class ProcessDied(Exception):
    """The process ended while it was being asked something.

    Args:
        text: how it ended.
        guilty: whether it was this very request that ran as it died.
    """

    def __init__(self, text: str, guilty: bool = False) -> None:
        super().__init__(text)
        self.guilty = guilty


def as_error(told: dict[str, Any]) -> Exception:
    """The error that `foreign.trouble.told` made JSON of."""
    text: str = told["text"]
    if told["kind"] == "unknown":
        return UnknownName(text, told["name"], told["valid"])
    if told["kind"] in ("usage", "config"):
        return (ConfigError if told["kind"] == "config" else UsageError)(text)
    return RolloutError(text, told["boundary"], told["blame"], told["trace"])
