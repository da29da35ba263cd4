"""From an exception to a recorded failure with boundary and blame; and when so many fail that the run should stop."""

from __future__ import annotations

import logging
import traceback
from collections import Counter, deque

import msgspec

from ludus.authoring.environment import Environment
from ludus.errors import ModelCallFailed, RolloutError, TooManyFailures
from ludus.redaction import SECRETS
from ludus.types import Failure, Reward, Rollout

log = logging.getLogger(__name__)

OF_LATE = 200
"""Finished attempts whose share of failures is watched: a server that dies late in a long run is seen soon."""
ENOUGH = 20
"""Finished attempts before that share says anything."""
HOPELESS = 0.9
"""Share of excluded attempts at which a run stops."""
WORRYING = 0.02
"""Share above which it is warned of, once."""


def as_failure(error: BaseException) -> Failure:
    """What went wrong, where, and whose fault: RolloutError says so itself, anything else is the environment's."""
    boundary, blame = ("environment", "environment")
    if isinstance(error, RolloutError):
        boundary, blame = error.boundary, error.blame
    frames = traceback.format_tb(error.__traceback__)[-3:] if not isinstance(error, RolloutError) else []
    if isinstance(error, RolloutError) and error.__cause__ is not None:
        frames = traceback.format_tb(error.__cause__.__traceback__)[-3:]
    trace = getattr(error, "trace", "") or "".join(frames)
    return Failure(boundary, blame, f"{type(error).__name__}: {error}", trace)  # type: ignore[arg-type]


def mark_failed(rollout: Rollout, env: Environment, failure: Failure) -> None:
    """Record a failure: the policy's own earns the environment's `failure_reward`, any other earns nothing at all."""
    failure = msgspec.structs.replace(failure, error=SECRETS.hide(failure.error), trace=SECRETS.hide(failure.trace))
    rollout.failure, rollout.stop = failure, "failed"
    by_policy = failure.blame == "policy"
    rollout.rewards = [Reward("failure", env.failure_reward, role=role) for role in env.roles] if by_policy else []


def blame_model(rollout: Rollout, env: Environment, failed: ModelCallFailed | None) -> None:
    """Where the last model call failed, that is why the rollout did, whatever its agent made of the error.

    An agent that talks to the model's address sees its own client's exception, which would count as the environment's;
    or, a program, it makes nothing of it and ends, and would be scored as if the model had had its say.
    """
    if failed is not None and rollout.failure is None and env.fails_with_model and failed.blame == "infrastructure":
        mark_failed(rollout, env, as_failure(failed))
    if failed is not None and rollout.failure is not None and rollout.failure.boundary == "environment":
        failure = as_failure(failed)
        text = f"{failure.error}; of which the agent made: {rollout.failure.error}"
        mark_failed(rollout, env, msgspec.structs.replace(failure, error=text, trace=rollout.failure.trace))


class FailureWatch:
    """Watches the attempts that finished of late: warns when too many are excluded, and says when nearly all are."""

    def __init__(self) -> None:
        self.retried = 0
        self._of_late: deque[Failure | None] = deque(maxlen=OF_LATE)
        self._warned = False

    def see(self, rollout: Rollout) -> None:
        """Count a finished attempt, its group scored."""
        self._of_late.append(rollout.failure if rollout.excluded else None)

    def check(self) -> None:
        """Raises TooManyFailures, quoting the commonest failure."""
        failures = [failure for failure in self._of_late if failure is not None]
        finished = len(self._of_late)
        if finished >= ENOUGH and len(failures) >= HOPELESS * finished:
            raise TooManyFailures(f"{_commonest(failures, finished)}\n{failures[-1].trace}".rstrip())
        if finished == OF_LATE and len(failures) > WORRYING * finished and not self._warned:
            self._warned = True
            log.warning("%s", _commonest(failures, finished))


def _commonest(failures: list[Failure], finished: int) -> str:
    (worst, count), *_ = Counter(f"{failure.boundary}: {failure.error}" for failure in failures).most_common(1)
    return f"{len(failures)} of the last {finished} rollouts failed; the commonest failure ({count} times): {worst}"
