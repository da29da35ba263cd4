"""From an exception to a recorded failure with boundary and blame; and when so many fail that the run should stop."""

from __future__ import annotations

import traceback
from collections import Counter

import msgspec

from ludus.authoring.environment import Environment
from ludus.errors import ModelCallFailed, RolloutError, TooManyFailures
from ludus.types import Failure, Reward, Rollout

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


def mark_failed(rollout: Rollout, env: Environment, failure: Failure) -> None:
    """Record a failure: the policy's own earns the environment's `failure_reward`, any other earns nothing at all."""
    rollout.failure, rollout.stop = failure, "failed"
    by_policy = failure.blame == "policy"
    rollout.rewards = [Reward("failure", env.failure_reward, role=role) for role in env.roles] if by_policy else []


def blame_model(rollout: Rollout, env: Environment, failed: ModelCallFailed | None) -> None:
    """Where the last model call failed, that is why the rollout did, whatever its agent made of the error.

    An agent that talks to the model's address sees its own client's exception, which would count as the environment's.
    """
    if failed is not None and rollout.failure is not None and rollout.failure.boundary == "environment":
        failure = as_failure(failed)
        text = f"{failure.error}; of which the agent made: {rollout.failure.error}"
        mark_failed(rollout, env, msgspec.structs.replace(failure, error=text, trace=rollout.failure.trace))


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
        self.exclude(rollout)

    def exclude(self, rollout: Rollout) -> None:
        """Count a finished attempt as excluded, if that is what it is."""
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
