"""From an exception to a recorded failure with boundary and blame; and when so many fail that the run should stop."""

from __future__ import annotations

import traceback
from collections import Counter

from ludus.errors import RolloutError, TooManyFailures
from ludus.types import Failure, Rollout

ENOUGH = 20
"""Finished rollouts before the share of failures says anything."""
HOPELESS = 0.9
"""Share of excluded rollouts at which a run stops."""


def as_failure(error: BaseException) -> Failure:
    """What went wrong, where, and whose fault: RolloutError says so itself, anything else is the environment's."""
    boundary, blame = ("environment", "environment")
    if isinstance(error, RolloutError):
        boundary, blame = error.boundary, error.blame
    frames = traceback.format_tb(error.__traceback__)[-3:] if not isinstance(error, RolloutError) else []
    if isinstance(error, RolloutError) and error.__cause__ is not None:
        frames = traceback.format_tb(error.__cause__.__traceback__)[-3:]
    return Failure(boundary, blame, f"{type(error).__name__}: {error}", "".join(frames))  # type: ignore[arg-type]


class FailureWatch:
    """Counts attempts and exclusions; says when nearly all fail."""

    def __init__(self) -> None:
        self.finished = 0
        self.excluded = 0
        self.retried = 0
        self._errors: Counter[str] = Counter()
        self._last_trace = ""

    def see(self, rollout: Rollout) -> None:
        """Count a finished attempt."""
        self.finished += 1
        if rollout.failure is not None and rollout.excluded:
            self.excluded += 1
            self._errors[f"{rollout.failure.boundary}: {rollout.failure.error}"] += 1
            self._last_trace = rollout.failure.trace

    def check(self) -> None:
        """Raises TooManyFailures, quoting the commonest failure."""
        if self.finished >= ENOUGH and self.excluded >= HOPELESS * self.finished:
            worst, count = self._errors.most_common(1)[0]
            raise TooManyFailures(
                f"{self.excluded} of {self.finished} rollouts failed; the commonest failure ({count} times): {worst}\n"
                f"{self._last_trace}".rstrip()
            )
