"""The environment's own expert in the model's place: demonstrations are rollouts like any other."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ludus.authoring.calling import call, inject
from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.errors import RolloutError
from ludus.recording.backend import Backend, MessageBackend
from ludus.types import MAIN_ROLE, Message, Reply, Sampling


def beside_experts(env: Environment, backend: Backend) -> dict[str, Backend]:
    """A backend in the main role; in the others the environment's expert, or the same one where there is none."""
    others = [role for role in env.roles if role != MAIN_ROLE and env.demonstrator_of(role) is not None]
    return {MAIN_ROLE: backend, **dict.fromkeys(others, Expert())}


class Expert:
    """Plays `Environment.demonstrate`; bound to each rollout when its context exists."""

    name = "demonstrator"

    def bind(self, env: Environment, ctx: Context, role: str) -> MessageBackend:
        """The expert of one rollout and role."""
        return _Demonstration(env, ctx, role)

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """An expert speaks only inside a rollout."""
        raise RolloutError("the demonstrator plays inside rollouts only")


class _Demonstration:
    name = "demonstrator"

    def __init__(self, env: Environment, ctx: Context, role: str) -> None:
        self._env, self._ctx, self._role = env, ctx, role
        self._play: Any = None
        self._seen = 0

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The expert's next reply. Raises RolloutError where it has none."""
        from ludus.renderers.parsing import tool_calls_of

        first, new = self._play is None, list(messages[self._seen :])
        if first:
            if (demonstrate := self._env.demonstrator_of(self._role)) is not None:
                self._play = await call(demonstrate, **inject(demonstrate, self._ctx.injectable()))
            if isinstance(self._play, str | dict):
                self._play = [self._play]
            if isinstance(self._play, list):
                self._play = iter(self._play)
        said = await self._next(first, new)
        if first and said is None:  # it wants to hear what it is asked before it says anything
            said = await self._next(False, new)
        message: Message = {"role": "assistant", "content": said} if isinstance(said, str) else said
        self._seen = len(messages) + 1
        called = tool_calls_of(message)
        return Reply(message, called, "tool_calls" if called else "stop")

    async def _next(self, first: bool, new: list[Message]) -> Any:
        play = self._play
        if play is None:
            raise RolloutError(f"{self._env.describe().id} has no demonstration of this task")
        try:  # here: a StopIteration can't leave a coroutine
            if inspect.isasyncgen(play):
                return await play.asend(None if first else new)  # type: ignore[arg-type] # None starts it
            if inspect.isgenerator(play):
                # In the loop's own thread: a generator may not be entered from another while it runs; steps are short.
                return play.send(None if first else new)  # type: ignore[arg-type] # None starts it
            return next(play)
        except (StopIteration, StopAsyncIteration):
            raise RolloutError("the demonstrator has nothing more to say, but the environment goes on") from None
