"""`delegate:ENV`: the model may hand sub-tasks to another model, the role "helper".

The tool `delegate` is there beside the environment's own, also where that has none and gives the model a single reply: its
calls are answered before the environment sees a reply. Who helps is configuration: by default the model itself, which then
learns both sides from the rollout's reward; `--role-model helper=openai:NAME` lets another one help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward, tool
from ludus.authoring.environment import Environment
from ludus.authoring.through import Through
from ludus.authoring.tools import Tool, answers
from ludus.authoring.wrapping import Wrapper
from ludus.errors import ConfigError, ToolError
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Message, Reply, Reward, Rollout, user

HELPER = "helper"
MOST_CHARS = 20_000
"""Of a sub-task."""
ALONE = "Not carried out, because it came beside delegate: call it again by itself."


class Delegate(Wrapper):
    """Another environment, in which sub-tasks can be handed to a helper."""

    prefix = "delegate"
    version = "1"
    extra_roles = (HELPER,)

    def __init__(self, env: str | Environment, *, delegations: int = 4, **options: Any) -> None:
        """
        Args:
            env: an environment, or what `ludus eval ENV` takes.
            delegations: sub-tasks of a rollout, at most.
            **options: of the environment.
        """
        if delegations < 1:
            raise ConfigError(f"delegate: delegations must be at least 1, got {delegations}")
        self.delegations = delegations
        super().__init__(env, **options)
        if "delegate" in self.inner.make_tools():
            raise ConfigError(f"delegate: {self.inner.describe().id} has a tool of that name already")

    async def setup(self, ctx: Context) -> None:
        """Put the one who answers calls of `delegate` in the model's place."""
        delegating = _Delegating(ctx.model, ctx.models[HELPER], self.delegations)
        ctx.models = {**ctx.models, MAIN_ROLE: delegating}
        await super().setup(ctx)

    @reward
    def delegate_helped(self, rollout: Rollout) -> Reward:
        """The helper earns what the rollout does; also one that was not asked, whom those that were are compared with."""
        return Reward("delegate_helped", rollout.reward, role=HELPER)

    @metric
    def delegate_count(self, rollout: Rollout) -> float:
        """Sub-tasks handed on."""
        return float(_sub_tasks(rollout))


def _sub_tasks(rollout: Rollout) -> int:
    return sum(call.role == HELPER for call in rollout.calls)


class _Delegating(Through):
    """Answers calls of `delegate`, and passes on the first reply without one."""

    def __init__(self, model: Model, helper: Model, most: int) -> None:
        self._helper, self._most = helper, most
        self._own = {"delegate": Tool(self.delegate)}
        super().__init__(model)

    def begin(self) -> None:
        """See `Through.begin`."""
        super().begin()
        self._left = self._most

    async def ask(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """See `Through.ask`."""
        offered = [*tools, self._own["delegate"]]
        shown, said = self.whole(messages), list[Message]()
        reply = await self.below(agent, shown, tools=offered, **sampling)
        while any(called.name in self._own for called in reply.tool_calls):
            left = self._left
            said += [reply.message, *await self._answers(reply)]
            self._left = min(self._left, left - 1)  # one less, also where all that was asked could not be read
            reply = await self.below(agent, [*shown, *said], tools=offered, **sampling)
            if left <= 0:
                break
        self.remember(messages, said, reply)
        return reply

    @tool
    async def delegate(self, sub_task: str) -> str:
        """Hand a sub-task to a helper, who sees nothing of this conversation.

        Args:
            sub_task: everything that the helper has to know, and what to answer.
        """
        if not sub_task.strip():
            raise ToolError("the sub-task is empty")
        if self._left <= 0:
            raise ToolError("there is no helper any more: do it yourself")
        self._left -= 1
        return (await self._helper.subagent(HELPER).chat([user(sub_task[:MOST_CHARS])])).text

    async def _answers(self, reply: Reply) -> list[Message]:
        """One for each call, in order; others than `delegate` have to wait for their environment."""
        own = iter(await answers(self._own, [called for called in reply.tool_calls if called.name in self._own], {}))
        return [
            next(own) if called.name in self._own else {"role": "tool", "tool_call_id": called.id, "content": ALONE}
            for called in reply.tool_calls
        ]
