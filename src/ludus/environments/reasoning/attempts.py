"""`attempts:ENV`: the model tries several times side by side, and one attempt counts.

Each attempt is a whole play of the environment, with a state, tools and sandbox of its own; its calls are those of a
sub-agent, "attempt-1" and on. The one that is chosen becomes the rollout's own, and is what the scorers see. All are
trained with its reward. Chosen is by vote (the commonest answer), by a judge that scores each alone ("best"), or by one
that sees them all ("judge"); the judge is a role.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Literal, TypeVar, get_args

from ludus.authoring.calling import call
from ludus.authoring.context import Context
from ludus.authoring.declare import metric
from ludus.authoring.environment import Environment
from ludus.authoring.tools import Tool
from ludus.authoring.wrapping import Wrapper
from ludus.environments.reasoning.judged import JUDGE, best_of, criterion, score_of
from ludus.environments.reasoning.text import answer_of, last_words
from ludus.errors import ConfigError, RolloutError
from ludus.judging.judge import side_by_side
from ludus.types import MAIN_ROLE, Call, Rollout

ResultT = TypeVar("ResultT")
Choose = Literal["vote", "best", "judge"]
AGENT = "attempt-"
NO_ANSWER = ""
QUALITY = criterion(
    "attempt", "The attempt solves the task. 10: right beyond doubt. 5: it may be. 0: wrong, or no answer."
)


class Attempts(Wrapper):
    """Another environment, played several times at once; one of the attempts counts."""

    prefix = "attempts"
    version = "1"
    outermost = True

    def __init__(
        self,
        env: str | Environment,
        *,
        attempts: int = 4,
        choose: Choose = "vote",
        at_once: int | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            env: an environment, or what `ludus eval ENV` takes.
            attempts: how many.
            choose: how one is chosen: vote, best or judge.
            at_once: how many are played, or judged, at a time; by default all. 1 where a recipe is deterministic.
            **options: of the environment.
        """
        if attempts < 2:
            raise ConfigError(f"attempts: expected at least 2 attempts, got {attempts}")
        if choose not in get_args(Choose):
            raise ConfigError(f"attempts: choose must be one of {', '.join(get_args(Choose))}, got {choose!r}")
        if at_once is not None and at_once < 1:
            raise ConfigError(f"attempts: at_once must be at least 1, got {at_once}")
        self.attempts, self.choose, self.at_once = attempts, choose, at_once or attempts
        self.extra_roles = () if choose == "vote" else (JUDGE,)
        super().__init__(env, **options)
        self._open: dict[int, AsyncExitStack] = {}
        """Of each rollout that runs, by its context's id: what its attempts have to tidy up."""

    @property
    def can_demonstrate(self) -> bool:
        """An expert plays once: there is nothing to choose from."""
        return False

    async def setup(self, ctx: Context) -> None:
        """Each attempt is set up when it begins."""
        self._open[id(ctx)] = AsyncExitStack()

    async def teardown(self, ctx: Context) -> None:
        """Tear all attempts down: until now scorers may have asked for what the chosen one left."""
        if stack := self._open.pop(id(ctx), None):
            await stack.aclose()

    async def run(self, ctx: Context) -> None:
        """Play all attempts, and take one of them for the rollout's own."""
        others = [self._another(ctx, number) for number in range(1, self.attempts + 1)]
        stack = self._open[id(ctx)]
        errors = await self._in_turn([partial(self._play, other, stack) for other in others])
        alive = [number for number, error in enumerate(errors, 1) if error is None]
        if not alive:
            raise errors[0] or RuntimeError("no attempt was made")
        last = last_calls(await ctx.model.calls())
        said = [_final(last.get(f"{AGENT}{number}")) for number in alive]
        number = alive[await self._choice(ctx, said)]
        await ctx.model.adopt(f"{AGENT}{number}")
        chosen = others[number - 1]
        ctx.state, ctx.sandbox, ctx.tools = chosen.state, chosen.sandbox, chosen.tools
        ctx.messages, ctx.stop = chosen.messages, chosen.stop

    @metric
    def attempts_agreement(self, rollout: Rollout) -> float:
        """Share of the attempts that give the same answer as the chosen one."""
        last = last_calls(rollout.calls)
        answers = Counter(answer_of(_final(found)) for found in last.values())
        return answers[answer_of(_final(last[""]))] / self.attempts if "" in last else 0.0

    def _another(self, ctx: Context, number: int) -> Context:
        models = {role: model.subagent(f"{AGENT}{number}") for role, model in ctx.models.items()}
        return Context(task=ctx.task, models=models, random=random.Random(ctx.random.getrandbits(64)))

    async def _play(self, ctx: Context, stack: AsyncExitStack) -> RolloutError | None:
        """One attempt; an error that is the policy's own, if there was one."""
        try:
            tools: dict[str, Tool] = await stack.enter_async_context(self.inner.equipped())
            ctx.tools = tools
            stack.push_async_callback(call, self.inner.teardown, ctx)
            await call(self.inner.setup, ctx)
            await call(self.inner.run, ctx)
        except RolloutError as error:
            if error.blame != "policy":
                raise
            return error
        return None

    async def _in_turn(self, work: Sequence[Callable[[], Coroutine[Any, Any, ResultT]]]) -> list[ResultT]:
        """All results, in order, so many at a time; the first that raises ends the others."""
        turns = asyncio.Semaphore(self.at_once)

        async def take(one: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
            async with turns:
                return await one()

        return await side_by_side([take(one) for one in work])

    async def _choice(self, ctx: Context, said: Sequence[str]) -> int:
        """The place of the one that counts. Raises RolloutError where a judge gives no verdict."""
        if self.choose == "judge" and len(said) > 1:
            return await best_of(ctx.models[JUDGE], ctx.task, said)
        if self.choose == "best" and len(said) > 1:
            judge = ctx.models[JUDGE]
            scores = await self._in_turn([partial(score_of, judge, QUALITY, ctx.task, text) for text in said])
            return scores.index(max(scores))
        return vote([answer_of(text) for text in said])


def vote(answers: Sequence[str]) -> int:
    """The place of the first of the commonest answers; none counts as an answer only where there is no other.

    >>> vote(["41", "42", "42"]), vote(["", "", "7"]), vote(["1", "2"])
    (1, 2, 0)
    """
    counts = Counter(answer for answer in answers if answer != NO_ANSWER) or Counter(answers)
    commonest = max(counts.values())
    return next(place for place, answer in enumerate(answers) if counts[answer] == commonest)


def last_calls(calls: Sequence[Call]) -> dict[str, Call]:
    """The main role's last call in each attempt, by the attempt's name; the chosen one's is ""."""
    return {
        made.agent: made
        for made in calls
        if made.role == MAIN_ROLE and (not made.agent or made.agent.startswith(AGENT))
    }


def _final(made: Call | None) -> str:
    """What a call's reply says at last; "" for no call."""
    return "" if made is None else last_words(made.reply)
