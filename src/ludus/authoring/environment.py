"""`Environment`: tasks, an agent loop and rewards.

Three depths to override, each smaller than the next: nothing (one reply, or a chat with tools), `respond` (what the
environment says after each reply), `run` (any agent at all, even a foreign framework on `ctx.model.base_url`).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ludus.authoring import tools as tools_module
from ludus.authoring.calling import call, inject, wanted
from ludus.authoring.content import environment_hash
from ludus.authoring.context import Context
from ludus.authoring.declare import ScorerMark, StopMark, ToolMark, mark_of
from ludus.authoring.tools import Tool
from ludus.redaction import SECRETS
from ludus.types import MAIN_ROLE, EnvironmentRef, Message, Reply, Task, user

Answer = str | Message | list[Message] | None
"""What `respond` returns: the next user text, message or messages; None ends the rollout."""


class Environment:
    """Base of all environments. Keyword arguments of `__init__` are the environment's options.

    >>> class Echo(Environment):
    ...     def tasks(self, split):
    ...         return [Task(prompt="Say hi", answer="hi")]
    >>> Echo().describe().id
    'Echo'
    """

    name: ClassVar[str] = ""
    """Its id in results; the class's name by default."""
    version: ClassVar[str] = "0"
    depends_on: ClassVar[tuple[str, ...]] = ()
    """Installed distributions whose versions are part of its content hash."""
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    roles: ClassVar[tuple[str, ...]] = (MAIN_ROLE,)
    """Who takes part; each role has its own model, trained or frozen by configuration."""
    max_turns: int = 10
    """Replies after which the default loop ends."""
    system_prompt: str = ""
    failure_reward: float = 0.0
    """What a rollout earns that the policy itself made fail."""
    success_reward: float = 1.0
    """Reward from which a rollout counts as a success in pass@k."""
    sampling: dict[str, Any] = {}
    """Fields of `Sampling` that this environment prefers, such as max_tokens; programs may override them."""
    fails_with_model: ClassVar[bool] = False
    """Whether a rollout has failed whose last model call did through no fault of the policy, though its agent went on."""
    pinned: tuple[str, ...] = ()
    """Fields of `Sampling` that agents don't choose: what their calls say of them is left aside. For programs that would
    otherwise sample in a way that can't be trained on."""

    options: dict[str, Any]
    ref: EnvironmentRef | None = None
    """Set by whoever loaded it by name."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Environment:
        env = super().__new__(cls)
        if cls.__init__ is object.__init__:
            if args or kwargs:
                raise TypeError(f"{cls.__name__} takes no options, got {', '.join([*map(repr, args), *kwargs])}")
            bound: dict[str, Any] = {}
        else:
            signature = inspect.signature(cls.__init__)
            arguments = signature.bind(env, *args, **kwargs)
            arguments.apply_defaults()
            bound = dict(arguments.arguments)
            bound.pop(next(iter(signature.parameters)))
            for name, parameter in signature.parameters.items():
                if parameter.kind is parameter.VAR_KEYWORD:
                    bound |= bound.pop(name)
        SECRETS.learn(bound)
        env.options = bound
        return env

    # --- what authors write ---------------------------------------------------------------------------------------

    def tasks(self, split: str) -> Iterable[Task]:
        """The problems of a split: a list or a generator, the same each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must define tasks(self, split)")

    async def open(self) -> None:
        """Start what rollouts share, such as a server: in each process that plays some, before the first."""

    async def close(self) -> None:
        """Stop it, after the last, also where `open` raised half-way."""

    async def setup(self, ctx: Context) -> None:
        """Prepare one rollout, e.g. `ctx.state`. Always followed by `teardown`."""

    async def teardown(self, ctx: Context) -> None:
        """Clean up after one rollout, whatever happened."""

    async def run(self, ctx: Context) -> None:
        """The agent loop. By default: chat, answer with `respond`, until it says None, a stop condition holds, a reply
        is cut off, or `max_turns` replies were made."""
        ctx.messages = self.opening(ctx.task)
        schemas = [tool.schema for tool in ctx.tools.values()]
        for _ in range(self.max_turns):
            reply = await ctx.model.chat(ctx.messages, tools=schemas)
            ctx.messages.append(reply.message)
            if reply.truncated:
                ctx.stop = "length"
                return
            answer = await call(self.respond, ctx, reply)
            ctx.messages.extend(as_messages(answer))
            stopped = await self.stopped(ctx)
            if answer is None or stopped:
                ctx.stop = stopped or "done"
                return
        ctx.stop = "max_turns"

    async def respond(self, ctx: Context, reply: Reply) -> Answer:
        """What comes after a reply. By default: the results of its tool calls, or None if it made none."""
        if reply.malformed:
            return user(f"Your tool call could not be read: {reply.malformed}") if ctx.tools else None
        available = ctx.injectable()
        answers = [await tools_module.answer(ctx.tools, tool_call, available) for tool_call in reply.tool_calls]
        return answers or None

    def demonstrate(self, task: Task) -> Any:
        """An expert's play, from which warm-up data is made: the reply as text or message, a list of successive
        replies, or a generator that yields replies and is sent the list of messages that came after each.

        It may also ask for `random`, `state` and `ctx` by name. None where there is no expert.
        """
        return None

    # --- what programs read ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open for as long as anybody is inside."""
        users = self.__dict__.setdefault("_users", _Users())
        async with users.changing:
            users.count += 1
            if users.count == 1:
                try:
                    await self.open()
                except BaseException:
                    users.count -= 1
                    await self.close()
                    raise
        try:
            yield
        finally:
            async with users.changing:
                users.count -= 1
                if users.count == 0:
                    await self.close()

    def opening(self, task: Task) -> list[Message]:
        """The conversation before the first reply."""
        messages = task.messages()
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        return messages

    @property
    def can_demonstrate(self) -> bool:
        return type(self).demonstrate is not Environment.demonstrate

    def make_tools(self) -> dict[str, Tool]:
        """The tools declared on the class, bound to this environment, by name."""
        tools = [Tool(method) for method, mark in self._marked() if isinstance(mark, ToolMark)]
        return {tool.name: tool for tool in tools}

    def scorers(self) -> list[tuple[Callable[..., Any], ScorerMark]]:
        """The scorers of single rollouts, in order of definition."""
        return [(fn, mark) for fn, mark in self._scorers() if "group" not in wanted(fn)]

    def group_scorers(self) -> list[tuple[Callable[..., Any], ScorerMark]]:
        """The scorers that compare the rollouts of one task."""
        return [(fn, mark) for fn, mark in self._scorers() if "group" in wanted(fn)]

    async def stopped(self, ctx: Context) -> str:
        """The name of a stop condition that holds now, or ""."""
        for fn, mark in self._marked():
            if isinstance(mark, StopMark) and await call(fn, **inject(fn, ctx.injectable())):
                return mark.name
        return ""

    def describe(self) -> EnvironmentRef:
        """Names it so that it can be rebuilt."""
        return self.ref or self._unnamed_ref

    @functools.cached_property
    def _unnamed_ref(self) -> EnvironmentRef:
        """For who passed the object itself."""
        hashed = environment_hash(type(self), self.options)
        return EnvironmentRef(self.name or type(self).__name__, self.options, self.version, hashed)

    def _scorers(self) -> list[tuple[Callable[..., Any], ScorerMark]]:
        return [(fn, mark) for fn, mark in self._marked() if isinstance(mark, ScorerMark)]

    def _marked(self) -> list[tuple[Callable[..., Any], Any]]:
        marked = self.__dict__.get("_marked_methods")
        if marked is None:
            names = dict.fromkeys(name for kind in reversed(type(self).__mro__) for name in vars(kind))
            methods = [getattr(self, name) for name in names if callable(getattr(type(self), name, None))]
            marked = [(method, mark_of(method)) for method in methods if mark_of(method) is not None]
            self.__dict__["_marked_methods"] = marked
        return marked


@dataclass
class _Users:
    """Who is inside an environment that is open, and a lock on coming and going."""

    count: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


def as_messages(answer: Answer) -> list[Message]:
    """Whatever `respond` returned, as messages."""
    if answer is None:
        return []
    if isinstance(answer, str):
        return [user(answer)]
    return [answer] if isinstance(answer, dict) else list(answer)
