"""Between GEPA, which is synchronous and runs in a thread of its own, and rollouts, which run in the event loop.

What GEPA asks for here: scores of tasks under a prompt, what to show its reflection, and replies of the model that
reflects. An excluded rollout has no score; as GEPA needs one for each task, it gets the mean of those beside it, and is
counted.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, TypeVar

from ludus.authoring.conversations import opening
from ludus.authoring.environment import Environment
from ludus.environments.reasoning.prompt import Prompt
from ludus.errors import LudusError, RolloutError
from ludus.judging.quoting import legible, pieces_of, shortened
from ludus.programs.evaluate import preferred_sampling
from ludus.programs.optimize.earlier import Earlier
from ludus.recording.alone import ask_alone
from ludus.recording.backend import Backend
from ludus.redaction import SECRETS
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.rollouts.workers import cancel_all
from ludus.seeds import derive
from ludus.types import Message, Rollout, Sampling, Task, user

ResultT = TypeVar("ResultT")
COMPONENT = "system_prompt"
MOST_CHARS = 4_000
"""Of a transcript that is shown to who reflects; what is longer loses its middle."""


class Stopped(LudusError):
    """The program was asked to stop."""


class Bridge:
    """What GEPA calls an adapter, and its model that reflects.

    Args:
        env: whose prompt is optimised; open.
        backends: what stands behind each role.
        reflecting: the model that reflects.
        plan: how rollouts are run; its purpose is the beginning of theirs.
        earlier: what was done before an interruption.
        on_rollout: told each finished attempt.
        on_scored: told how many tasks have been scored so far.
    """

    propose_new_texts = None
    """GEPA's own way of proposing is used."""

    def __init__(
        self,
        env: Environment,
        backends: Mapping[str, Backend],
        reflecting: Backend,
        plan: Plan,
        earlier: Earlier,
        on_rollout: Callable[[Rollout], object],
        on_scored: Callable[[int], object],
    ) -> None:
        self._env, self._backends, self._reflecting, self._plan = env, backends, reflecting, plan
        self._earlier = earlier
        self._on_rollout, self._on_scored = on_rollout, on_scored
        self._loop = asyncio.get_running_loop()
        self._numbers: dict[str, int] = {}
        """Of each prompt, from 1 on; part of its rollouts' purpose."""
        self._visits: dict[tuple[str, str], int] = defaultdict(int)
        self.stopping = False
        self.num_scored = self.num_excluded = self.num_reflections = 0
        self.error: Exception | None = None
        """What went wrong here: GEPA takes some errors for a proposal that failed, and goes on."""
        self._working: set[asyncio.Task[Any]] = set()

    # --- what GEPA calls, in its thread ---------------------------------------------------------------------------

    def evaluate(self, batch: list[Task], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """One rollout of each task under a prompt."""
        from gepa.core.adapter import EvaluationBatch

        rollouts = self._in_loop(self._play(batch, candidate[COMPONENT]))
        scores = scores_of(rollouts)
        return EvaluationBatch(
            outputs=[rollout.reply for rollout in rollouts],
            scores=scores,
            trajectories=rollouts if capture_traces else None,
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """What happened, and what it earned, for each component (there is one)."""
        shown = [reflected(rollout, self._env) for rollout in eval_batch.trajectories if not rollout.excluded]
        return dict.fromkeys(components_to_update, shown)

    def reflect(self, prompt: str | list[dict[str, Any]]) -> str:
        """A reply of the model that reflects."""
        return self._in_loop(self._reflect(prompt))

    def stops(self, gepa_state: Any) -> bool:
        """Whether GEPA is to end now."""
        return self.stopping or self.error is not None

    # --- what that comes to, in the event loop --------------------------------------------------------------------

    def _in_loop(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        if self.stopping:
            work.close()
            raise Stopped("asked to stop")
        try:
            return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop).result()
        except CancelledError:
            raise Stopped("the program is over") from None
        except Exception as error:
            self.error = error
            raise

    async def _tracked(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in one
        self._working.add(task)
        try:
            return await work
        finally:
            self._working.discard(task)

    async def close(self) -> None:
        """End what still runs for GEPA: its thread then finds that the program is over."""
        self.stopping = True
        await cancel_all(self._working)

    async def _play(self, tasks: Sequence[Task], text: str) -> list[Rollout]:
        """A rollout of each task, in order. Raises RolloutError where none of them could be scored."""
        number = self._numbers.setdefault(text, len(self._numbers) + 1)
        plan = _with_purpose(self._plan, f"{self._plan.purpose}:{number}")
        visits = []
        for task in tasks:
            visits.append((task, self._visits[text, task.id]))
            self._visits[text, task.id] += 1
        env = Prompt(self._env, text=text) if text.strip() else self._env
        found = {(task.id, visit): self._earlier.rollout(plan.purpose, task.id, visit) for task, visit in visits}
        played = {place: rollout for place, rollout in found.items() if rollout is not None}
        todo = [(task, visit) for task, visit in visits if (task.id, visit) not in played]
        if todo:
            async with Scheduler(env, self._backends, plan, on_rollout=self._on_rollout) as scheduler:
                async for group in scheduler.groups(todo, 1):
                    played[group.task.id, group.visit] = group.rollouts[0]
        rollouts = [played[task.id, visit] for task, visit in visits]
        failed = [rollout for rollout in rollouts if rollout.excluded]
        self.num_scored += len(rollouts)
        self.num_excluded += len(failed)
        self._on_scored(self.num_scored)
        if failed and len(failed) == len(rollouts):
            failure = failed[0].failure
            assert failure is not None  # it is excluded
            raise RolloutError(f"no rollout could be scored: {failure.error}", failure.boundary, failure.blame)
        return rollouts

    async def _reflect(self, prompt: str | list[dict[str, Any]]) -> str:
        number = self.num_reflections
        self.num_reflections += 1
        if (said := self._earlier.reflection(number, prompt)) is not None:
            return said
        messages = [user(prompt)] if isinstance(prompt, str) else prompt
        seed = derive(self._plan.seed, "reflection", number)
        reply = await ask_alone(self._reflecting, messages, Sampling(), seed=seed, session=f"reflection-{number}")
        self._earlier.keep(number, prompt, SECRETS.hide(reply.text), reply.usage)
        return reply.text


def scores_of(rollouts: Sequence[Rollout]) -> list[float]:
    """A score for each rollout: its reward, or where it was excluded the mean of the others."""
    counted = [rollout.reward for rollout in rollouts if not rollout.excluded]
    mean = sum(counted) / max(1, len(counted))
    return [mean if rollout.excluded else rollout.reward for rollout in rollouts]


def reflected(rollout: Rollout, env: Environment) -> dict[str, Any]:
    """A rollout as the model that reflects is shown it."""
    talk = [message for message in rollout.messages if message.get("role") != "system"]
    asked = opening(talk)
    scores = ", ".join(f"{name} {value:g}" for name, value in rollout.metrics.items())
    feedback = f"Reward {rollout.reward:g}, where {env.success_reward:g} is a success ({scores})."
    if rollout.failure is not None:
        feedback += f" It failed: {rollout.failure.error}."
    if rollout.truncated:
        feedback += " A reply was cut off at its token limit."
    if rollout.task.answer is not None and rollout.reward < env.success_reward:
        known = rollout.task.answer
        feedback += f" The known answer is: {known if isinstance(known, str) else json.dumps(known)}"
    outputs = _text(talk[len(asked) :])
    return {"Inputs": _text(asked), "Generated Outputs": outputs, "Feedback": legible(feedback, MOST_CHARS)}


def sampling_of(env: Environment, overrides: Mapping[str, Any]) -> Sampling:
    """The environment's sampling with what the command says. Raises ConfigError."""
    return preferred_sampling(env, {name: value for name, value in overrides.items() if value is not None})


def _with_purpose(plan: Plan, purpose: str) -> Plan:
    return replace(plan, purpose=purpose)


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(f"{piece.who}: {piece.text}" for piece in shortened(pieces_of(messages), MOST_CHARS))
