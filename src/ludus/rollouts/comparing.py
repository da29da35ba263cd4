"""Group scorers at work: what they say of the rollouts of one task, what they ask models for it, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from ludus.authoring.environment import Environment
from ludus.errors import RolloutError, RolloutTimeout
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.rollouts.failure import as_failure, mark_failed
from ludus.rollouts.recordable import make_recordable
from ludus.rollouts.scoring import score_group
from ludus.sandbox.noted import noting_tiers
from ludus.types import Rollout


async def compare(
    env: Environment, rollouts: Sequence[Rollout], recorder: Recorder, gateway: Gateway, timeout_s: float | None
) -> None:
    """Let the group scorers compare rollouts that did not fail; adds to their rewards.

    What they ask models is kept with the first rollout, so that it is written, and paid for, once. Where a scorer fails,
    all of them have: without what it says none can be told from another. Never raises for that: it is in the records.

    Args:
        recorder: of the scorers' calls; closed afterwards.
        timeout_s: for all scorers together.
    """
    if not env.group_scorers() or not rollouts:
        return
    models = {role: RecordedModel(recorder, role, gateway) for role in recorder.backends}
    with noting_tiers() as tiers:
        try:
            error = await _within(timeout_s, env, rollouts, recorder, models)
        finally:
            for model in models.values():
                model.close()
            recorder.close()
    rollouts[0].group_calls = [msgspec.structs.replace(call, sequence=None) for call in recorder.calls]
    for rollout in rollouts:
        if error is not None:
            mark_failed(rollout, env, as_failure(error))
        rollout.sandboxes = sorted(tiers.union(rollout.sandboxes))
        if recorder.calls:
            make_recordable(rollout, env)


async def _within(
    timeout_s: float | None,
    env: Environment,
    rollouts: Sequence[Rollout],
    recorder: Recorder,
    models: dict[str, RecordedModel],
) -> RolloutError | None:
    """What went wrong, if anything."""
    waited: list[bool] = []
    loop = asyncio.get_running_loop()
    asking = loop.call_later(timeout_s, lambda: waited.append(recorder.waiting)) if timeout_s is not None else None
    try:
        async with asyncio.timeout(timeout_s):
            await score_group(env, list(rollouts), models)
    except RolloutError as error:
        return error
    except TimeoutError:
        text = f"scoring the group took more than {timeout_s} s"
        return RolloutTimeout(text, "infrastructure" if any(waited) else "environment")
    finally:
        if asking is not None:
            asking.cancel()
    return None
