"""`SimulatedTools`: the same environment with a model in the place of its tools.

    class Simulated(SimulatedTools, Shop):
        roles = ("policy", "api")

Train in `Simulated`, evaluate in `Shop`. Scorers that look at what real tools change have nothing to see there: they must
judge by the conversation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from ludus.authoring.calling import call
from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.authoring.simulated.api import Example, SimulatedApi, real_answers
from ludus.errors import ConfigError
from ludus.types import Message, Task

API = "api"
"""The role of the model that plays the tools."""


class SimulatedTools(Environment):
    """Put before an environment whose tools are to be simulated; its roles must have "api"."""

    examples: Sequence[Example] = ()
    """What the real tools answered: they show the form of the results."""

    def initial_state(self, task: Task) -> Any:
        """What the API has at the beginning: by default what stands under "state" in the task's info."""
        return task.info.get("state")

    def demonstrator_of(self, role: str) -> Callable[..., Any] | None:
        """As an API, the expert answers with the real tools."""
        return self.demonstrate_api if role == API else super().demonstrator_of(role)

    def demonstrate_api(self, ctx: Context) -> AsyncGenerator[str | None, list[Message]]:
        """The tools that the class declares, in the place of the model that plays them."""
        return real_answers(super().make_tools(), ctx)

    async def setup(self, ctx: Context) -> None:
        """As the real environment prepares a rollout; then its tools are replaced. Raises ConfigError without the role."""
        if API not in ctx.models:
            roles = ", ".join(map(repr, [*self.roles, API]))
            raise ConfigError(
                f'{type(self).__name__} needs the role "{API}", for the model that plays its tools: roles = ({roles})'
            )
        await call(super().setup, ctx)
        schemas = [tool.schema for tool in ctx.tools.values()]
        state = self.initial_state(ctx.task)
        ctx.tools = SimulatedApi(ctx.models[API], schemas, examples=self.examples, state=state).tools()
