"""`budget:ENV`: a number of tokens for each task, a reward for keeping to it, and if wanted its enforcement.

The number is one for all tasks, or one for each band of difficulty. The model is told it. Forcing is that of s1
(arXiv:2501.19393) as far as an API of messages allows: who runs out is told that time is up and answers in a few more
tokens, and who stops early is told to go on. What is said so is part of the same sequence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.authoring.through import Through, beneath
from ludus.authoring.wrapping import Wrapper
from ludus.environments.reasoning.lengths import DELTA, PENALTY, Form, length_term, success_within
from ludus.environments.reasoning.text import estimated, num_tokens, own_calls, said_in
from ludus.errors import ConfigError
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Message, Reply, Rollout, Task, user

LOOKED_AT = 256
"""Tasks of a split among which every band has to have one."""
TOLD = {"exact": "Use about {} tokens, thinking included.", "maximum": "Use at most {} tokens, thinking included."}
TIME_IS_UP = "Time is up. Give your final answer now, in the form that was asked for, and nothing else."
GO_ON = "Wait. Look for a mistake in what you have so far, then give your final answer again."
LENGTH = "budget_length"


@dataclass(frozen=True)
class Band:
    """Tasks from one difficulty to another, both included, and the tokens that each of them has."""

    low: float
    high: float
    tokens: int

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class Budget(Wrapper):
    """Another environment, with a number of tokens to keep to."""

    prefix = "budget"
    version = "1"

    def __init__(
        self,
        env: str | Environment,
        *,
        tokens: int | None = None,
        bands: Sequence[Sequence[float]] | None = None,
        difficulty: str = "difficulty",
        form: Form = "maximum",
        penalty: float = PENALTY,
        told: bool = True,
        force: bool = False,
        answer_tokens: int = 64,
        waits: int = 0,
        **options: Any,
    ) -> None:
        """
        Args:
            env: an environment, or what `ludus eval ENV` takes.
            tokens: the budget of every task.
            bands: in its place budgets by difficulty, as [from, to, tokens] each; both ends belong to the band.
            difficulty: the key in a task's `info` under which its difficulty is.
            form: "maximum" is not to be exceeded, "exact" is to be met.
            penalty: reward for each token beside it.
            told: whether the model is told its budget.
            force: whether a reply is cut off when the budget is used up; the model then answers in `answer_tokens`.
            answer_tokens: for the answer after that.
            waits: with form "exact", how often a model that stops before its budget is told to go on.
            **options: of the environment.
        """
        if form not in get_args(Form):
            raise ConfigError(f"budget: form must be {' or '.join(get_args(Form))}, got {form!r}")
        if (tokens is None) == (bands is None):
            raise ConfigError("budget: give either tokens=N, or bands=[[from, to, N], ...]")
        if waits and form != "exact":
            raise ConfigError("budget: waits go with form=exact; under a maximum, who stops early does well")
        if not (math.isfinite(penalty) and penalty > 0):
            raise ConfigError(f"budget: penalty must be above 0, got {penalty}")
        if answer_tokens < 1 or waits < 0 or (tokens is not None and tokens < 1):
            raise ConfigError(f"budget: expected positive numbers, got {tokens=}, {answer_tokens=}, {waits=}")
        self.bands = [Band(-math.inf, math.inf, tokens)] if tokens is not None else read_bands(bands or [])
        self.tokens, self.difficulty, self.form, self.penalty = tokens, difficulty, form, penalty
        self.told, self.force, self.answer_tokens, self.waits = told, force, answer_tokens, waits
        super().__init__(env, **options)
        success = self.inner.success_reward
        if success <= 0:
            raise ConfigError(
                f"budget: needs a success reward above 0, and that of {self.inner.describe().id} is {success:g}"
            )
        self.success_reward = success_within(form, success)
        if form == "exact":  # to fail must not be better than to be wrong at any length
            self.failure_reward = self.inner.failure_reward - DELTA * success

    def tasks(self, split: str) -> Iterator[Task]:
        """Those of the environment. Raises ConfigError for a task in no band, and a band without a task."""
        tasks = iter(self.inner.tasks(split))
        first = list(itertools.islice(tasks, LOOKED_AT))
        found = [self.band_of(task) for task in first]
        for band in self.bands:
            if first and band not in found:
                raise ConfigError(
                    f"budget: no task of {split} has a difficulty from {band}; the first {len(first)} have "
                    f"{_range([self._difficulty(task) for task in first])}"
                )
        yield from first
        for task in tasks:
            self.band_of(task)
            yield task

    async def setup(self, ctx: Context) -> None:
        """Put the one who tells and enforces the budget beneath all who ask the model: what they ask counts, too."""
        if self.told or self.force or self.waits:
            budget = self.band_of(ctx.task).tokens
            ctx.models = {**ctx.models, MAIN_ROLE: beneath(ctx.model, lambda model: _Budgeted(model, self, budget))}
        await super().setup(ctx)

    @reward(name=LENGTH)
    def length(self, task: Task, rollout: Rollout) -> float:
        """What the length adds to the environment's reward, or takes away; see `lengths.length_term`."""
        return length_term(
            self.form, rollout.reward, num_tokens(own_calls(rollout)), self.band_of(task).tokens,
            success=self.inner.success_reward, penalty=self.penalty,
        )  # fmt: skip

    @metric
    def budget_solved(self, rollout: Rollout) -> float:
        """1 where the environment's own reward is a success, whatever the length."""
        own = sum(r.weight * r.value for r in rollout.rewards if r.role == MAIN_ROLE and r.scorer != LENGTH)
        return float(own >= self.inner.success_reward)

    @metric
    def budget_tokens(self, rollout: Rollout) -> float:
        """Tokens of the model's replies, thinking included."""
        return float(num_tokens(own_calls(rollout)))

    @metric
    def budget_kept(self, task: Task, rollout: Rollout) -> float:
        """1 where they are no more than the budget."""
        return float(num_tokens(own_calls(rollout)) <= self.band_of(task).tokens)

    def band_of(self, task: Task) -> Band:
        """The band of a task. Raises ConfigError where it has no difficulty, or one that is in no band."""
        if self.tokens is not None:
            return self.bands[0]
        value = self._difficulty(task)
        for band in self.bands:
            if band.low <= value <= band.high:
                return band
        listed = ", ".join(map(str, self.bands))
        raise ConfigError(f"budget: the difficulty {value:g} of task {task.id} is in no band (they are {listed})")

    def _difficulty(self, task: Task) -> float:
        value = task.info.get(self.difficulty)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            keys = ", ".join(task.info) or "nothing"
            raise ConfigError(
                f"budget: task {task.id} has no number as info[{self.difficulty!r}], got {value!r}; name the key with "
                f"difficulty=KEY (there is: {keys}), or give tokens=N for all tasks"
            )
        return float(value)


class _Budgeted(Through):
    """Tells the budget of a rollout before its first reply, and keeps the model to it where that is wanted."""

    def __init__(self, model: Model, env: Budget, budget: int) -> None:
        self._env, self._budget = env, budget
        super().__init__(model)

    def begin(self) -> None:
        """See `Through.begin`."""
        super().begin()
        self._used, self._waits = 0, self._env.waits

    async def ask(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """See `Through.ask`."""
        told = self._env.told
        shown = self.noted(messages, TOLD[self._env.form].format(self._budget)) if told else self.whole(messages)
        said: list[Message] = []
        had_time = self._used < self._budget
        reply = await self._limited(agent, shown, tools, sampling, self._left)
        if self._env.force and reply.truncated and had_time and self._used >= self._budget:
            said += [reply.message, user(TIME_IS_UP)]
            reply = await self._limited(agent, [*shown, *said], tools, sampling, self._env.answer_tokens)
        while self._waits and self._used < self._budget and not (reply.tool_calls or reply.truncated):
            self._waits -= 1
            said += [reply.message, user(GO_ON)]
            reply = await self._limited(agent, [*shown, *said], tools, sampling, self._left)
        self.remember(messages, said, reply)
        return reply

    @property
    def _left(self) -> int:
        """Tokens that the next reply may have; who has none left still gets an answer's."""
        left = self._budget - self._used
        return left if left > 0 else self._env.answer_tokens

    async def _limited(
        self, agent: str, shown: Sequence[Message], tools: Sequence[Any], sampling: dict[str, Any], most: int
    ) -> Reply:
        if self._env.force:
            limits = [
                limit for limit in (most, sampling.get("max_tokens"), self._env.sampling.get("max_tokens")) if limit
            ]
            sampling = {**sampling, "max_tokens": min(limits)}
        reply = await self.below(agent, shown, tools=tools, **sampling)
        self._used += reply.usage.completion_tokens or estimated(said_in(reply.message))
        return reply


def read_bands(rows: Sequence[Sequence[float]]) -> list[Band]:
    """Bands from rows [from, to, tokens], in order. Raises ConfigError for what is none, and for two that overlap."""
    bands = []
    for row in rows:
        numbers = isinstance(row, list | tuple) and len(row) == 3 and all(type(x) in (int, float) for x in row)
        if not numbers or not row[0] <= row[1] or not 1 <= row[2] < math.inf or row[2] != int(row[2]):
            raise ConfigError(
                f"budget: a band is [from, to, tokens] with from <= to and whole tokens >= 1, got {row!r}"
            )
        bands.append(Band(row[0], row[1], int(row[2])))
    if not bands:
        raise ConfigError("budget: bands is empty; give [[from, to, tokens], ...]")
    bands.sort(key=lambda band: band.low)
    for one, other in itertools.pairwise(bands):
        if other.low <= one.high:
            raise ConfigError(f"budget: the bands {one} and {other} overlap")
    return bands


def _range(values: Sequence[float]) -> str:
    return f"difficulties from {min(values):g} to {max(values):g}"
