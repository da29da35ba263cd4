"""`plan:ENV`: a plan before the first reply, and a score for it.

The plan is a call of its own (the sub-agent "plan"), so what the environment's scorers see is the answer alone; the
answer goes on in the same conversation, so both are one sequence and are trained together. A plan earns only where the
task is solved as well, so that the form alone is worth nothing. A judge's opinion of plans is the role "judge".
"""

from __future__ import annotations

import inspect
import json
import math
import random
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.authoring.through import Through
from ludus.authoring.wrapping import Scorer, Wrapper
from ludus.environments.reasoning.judged import JUDGE, criterion, score_of
from ludus.environments.reasoning.text import adherence, answer_of, said_in, steps_of
from ludus.errors import ConfigError
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Message, Reply, Reward, Rollout, Task, user

AGENT = "plan"
CARRY_OUT = "Now carry out the plan, and answer as you were asked."
EXPERT_PLAN = "1. Read what is asked.\n2. Work it out.\n3. Give it in the form that is asked for."
SHORT = 3
"""Characters of an answer below which it may well stand in a plan by chance."""
QUALITY = criterion(
    "plan",
    "The plan is a good plan for the task; it is no answer to it. 10: every step is needed, specific to this task, and "
    "together they lead to the answer. 5: it leaves out what matters or is general. 0: no plan, or it leads elsewhere.",
)


class Plan(Wrapper):
    """Another environment, in which the model writes a plan before it replies."""

    prefix = "plan"
    version = "1"

    def __init__(
        self,
        env: str | Environment,
        *,
        steps: int = 6,
        plan_weight: float = 0.1,
        plan_tokens: int | None = None,
        judged: bool = False,
        **options: Any,
    ) -> None:
        """
        Args:
            env: an environment, or what `ludus eval ENV` takes.
            steps: most steps of a plan.
            plan_weight: what a sound plan adds to the reward of a solved task.
            plan_tokens: tokens that a plan may have; by default what a reply may have.
            judged: whether the role "judge" scores plans as well: its score is then what counts.
            **options: of the environment.
        """
        if steps < 1 or (plan_tokens is not None and plan_tokens < 1):
            raise ConfigError(f"plan: steps and plan_tokens must be at least 1, got {steps=}, {plan_tokens=}")
        if not 0 <= plan_weight < math.inf:
            raise ConfigError(f"plan: plan_weight must be at least 0, got {plan_weight}")
        self.steps, self.plan_weight, self.plan_tokens, self.judged = steps, plan_weight, plan_tokens, judged
        self.extra_roles = (JUDGE,) if judged else ()
        super().__init__(env, **options)

    async def setup(self, ctx: Context) -> None:
        """Put the planner in the model's place."""
        ctx.models = {**ctx.models, MAIN_ROLE: _Planner(ctx.model, self._ask, self.plan_tokens)}
        await super().setup(ctx)

    async def demonstrate(self, ctx: Context, random: random.Random) -> Any:  # type: ignore[override]
        """The environment's expert, after a plan that fits everything."""
        return after(EXPERT_PLAN, await super().demonstrate(ctx, random))

    def own_scorers(self) -> list[Scorer]:
        """Those that are asked for: quality is a judge's."""
        return [(fn, mark) for fn, mark in super().own_scorers() if self.judged or mark.name != "plan_quality"]

    @reward(name="plan")
    def score_plan(self, task: Task, rollout: Rollout) -> Reward:
        """1 for a sound plan of a solved task."""
        earned = is_sound(plan_of(rollout), self.steps, task) and rollout.reward >= self.success_reward
        return Reward("plan", float(earned), 0.0 if self.judged else self.plan_weight)

    @reward
    async def plan_quality(self, task: Task, rollout: Rollout, models: Mapping[str, Model]) -> Reward:
        """The judge's score, between 0 and 1, of a sound plan of a solved task."""
        earned = rollout.metrics.get("plan") == 1.0
        value = await score_of(models[JUDGE], QUALITY, task, plan_of(rollout)) if earned else 0.0
        return Reward("plan_quality", value, self.plan_weight)

    @metric
    def plan_sound(self, task: Task, rollout: Rollout) -> float:
        """1 for a plan of 1 to `steps` numbered steps that does not give the answer away."""
        return float(is_sound(plan_of(rollout), self.steps, task))

    @metric
    def plan_adherence(self, rollout: Rollout) -> float:
        """Share of the plan's steps that the work after it takes up; 0 without a plan."""
        return adherence(steps_of(plan_of(rollout)), work_of(rollout)) or 0.0

    @property
    def _ask(self) -> str:
        return (
            f"Before you answer, write a plan: at most {self.steps} numbered steps, one a line, for this task. Do not give "
            f"the answer yet."
        )


class _Planner(Through):
    """Asks for a plan before the first reply of a rollout."""

    def __init__(self, model: Any, ask: str, max_tokens: int | None) -> None:
        super().__init__(model)
        self._ask = ask
        self._limit = {} if max_tokens is None else {"max_tokens": max_tokens}

    def begin(self) -> None:
        """See `Through.begin`."""
        super().begin()
        self._planned = False

    async def ask(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """See `Through.ask`."""
        if not self.goes_on(messages):
            return await self.below(agent, messages, tools=tools, **sampling)  # a plan is for one conversation
        shown, said = self.noted(messages, self._ask), list[Message]()
        if not self._planned:
            self._planned = True
            plan = await self.below(AGENT, shown, tools=tools, **{**sampling, **self._limit})
            if not plan.tool_calls:  # it has begun to work instead: on from where it stood
                said = [plan.message, user(CARRY_OUT)]
                shown += said
        reply = await self.below(agent, shown, tools=tools, **sampling)
        self.remember(messages, said, reply)
        return reply


def plan_of(rollout: Rollout) -> str:
    """What the model wrote before it was told to carry it out; "" where it was not asked."""
    talk = rollout.conversation(MAIN_ROLE)
    places = [i for i, message in enumerate(talk) if message.get("content") == CARRY_OUT and i > 0]
    return str(talk[places[0] - 1].get("content") or "") if places else ""


def work_of(rollout: Rollout) -> str:
    """What the model said after its plan, thinking and tool calls included."""
    own = [call for call in rollout.calls if call.role == MAIN_ROLE and not call.agent]
    return "\n".join(said_in(call.reply) for call in own)


def is_sound(plan: str, most: int, task: Task) -> bool:
    """Whether a plan has 1 to `most` numbered steps and does not give the known answer away.

    Away is given what the plan calls its answer, or an answer of three characters or more that is not in the task itself.
    """
    steps = steps_of(plan)
    if not 1 <= len(steps) <= most:
        return False
    if task.answer is None:
        return True
    known = task.answer if isinstance(task.answer, str) else json.dumps(task.answer)
    answer = " ".join(known.casefold().split())
    in_task = answer in json.dumps(task.prompt, ensure_ascii=False).casefold()
    told = len(answer) >= SHORT and not in_task and answer in " ".join(" ".join(steps).casefold().split())
    return not told and answer_of(plan) != answer


def after(first: str, play: Any) -> Any:
    """An expert's play that begins with one more reply, whatever form the rest has; see `Environment.demonstrate`."""
    if play is None:
        return None
    if inspect.isasyncgen(play):
        return _then_async(first, play)
    return _then(first, [play] if isinstance(play, str | dict) else play)


def _then(first: str, play: Any) -> Generator[Any, Any, None]:
    yield first
    if inspect.isgenerator(play):
        yield from play
    else:
        yield from (reply for reply in play)  # not the list itself: nothing can be sent to its iterator


async def _then_async(first: str, play: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    heard: Any = None
    yield first
    while True:
        try:
            said = await play.asend(heard)
        except StopAsyncIteration:
            return
        heard = yield said
