"""How long a model takes, and how much of that was waiting for an API that was not ready: pure functions of the record.

An attempt that fails (a rate limit, a server that is overloaded) and the wait for the next say how busy an API was, not
how fast a model is, so they are counted apart. What is measured depends on how many rollouts run at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from ludus.types import MAIN_ROLE, Call, Rollout

LEAST_WAIT_S = 0.005
"""Seconds that a rollout waits on average, from which that is shown."""


def waited_s(calls: Iterable[Call], since: float = 0.0, until: float = float("inf")) -> float:
    """Seconds in which at least one of the calls waited; they may have been made side by side.

    Args:
        calls: of one rollout.
        since, until: seconds after the beginning of its record, between which waiting counts.
    """
    spans = sorted((call.began_s, call.began_s + call.waited_s) for call in calls if call.waited_s)
    total, end = 0.0, since
    for first, last in spans:
        last = min(last, until)
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def working_s(rollout: Rollout) -> float:
    """Seconds that a rollout took from its setup to its last scorer, without waiting."""
    return max(0.0, rollout.seconds - waited_s(rollout.calls))


def answer_s(rollout: Rollout) -> float | None:
    """Seconds from the model's first call to the end of its last one, without waiting: the time to answer.

    Tools and other roles in between are part of it; setup, scorers and teardown are not. None where the model said
    nothing, or the record is of before calls had a time.
    """
    own = [call for call in rollout.calls if call.role == MAIN_ROLE]
    if not any(call.began_s for call in own):
        return None
    began, ended = min(call.began_s for call in own), max(call.began_s + call.seconds for call in own)
    return ended - began - waited_s(rollout.calls, began, ended)
