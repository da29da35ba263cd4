"""`Environment`: tasks, an agent loop and rewards.

Three depths to override, each smaller than the next: nothing (one reply, or a chat with tools), `respond` (what the
environment says after each reply), `run` (any agent at all, even a foreign framework on `ctx.model.base_url`).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ludus.authoring import tools as tools_module
from ludus.authoring.calling import call, inject, wanted
from ludus.authoring.content import environment_hash
from ludus.authoring.context import Context
from ludus.authoring.declare import ScorerMark, StopMark, ToolMark, mark_of
from ludus.authoring.mcp.server import McpServer
from ludus.authoring.mcp.servers import OpenServers, add_tools
from ludus.authoring.tools import Tool
from ludus.errors import ConfigError
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
    version: str = "0"
    depends_on: ClassVar[tuple[str, ...]] = ()
    """Installed distributions whose versions are part of its content hash."""
    splits: tuple[str, ...] = ("train", "test")
    roles: tuple[str, ...] = (MAIN_ROLE,)
    """Who takes part; each role has its own model, trained or frozen by configuration."""
    isolated: ClassVar[bool] = False
    """Whether its code runs in processes of its own anyway: programs then put it in no others."""
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
    servers: Sequence[McpServer] = ()
    """MCP servers, whose tools rollouts get beside the tools of the class."""

    options: dict[str, Any]
    ref: EnvironmentRef | None = None
    """Set by whoever loaded it by name."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = [name for name, value in vars(cls).items() if hasattr(Environment, name) and mark_of(value) is not None]
        if taken:
            raise ConfigError(
                f"{cls.__name__}.{taken[0]} is marked as a tool, reward or stop condition, but environments have a "
                f"{taken[0]} of their own, which it would replace: give it another name"
            )

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
            return user(f"{tools_module.UNREADABLE}: {reply.malformed}") if ctx.tools else None
        available = ctx.injectable()
        answers = await tools_module.answers(ctx.tools, reply.tool_calls, available)
        return answers or None

    def demonstrate(self, task: Task) -> Any:
        """An expert's play, from which warm-up data is made: the reply as text or message, a list of successive
        replies, or a generator that yields replies and is sent the list of messages that came after each. One that yields
        None first is sent the messages before its first reply, too.

        It may also ask for `random`, `state` and `ctx` by name. None where there is no expert.
        """
        return None

    def demonstrator_of(self, role: str) -> Callable[..., Any] | None:
        """The expert of a role, by default `demonstrate` for all of them; None where there is none."""
        return self.demonstrate if self.can_demonstrate else None

    # --- what programs read ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open for as long as anybody is inside."""
        users = self._users()
        async with users.changing:
            users.count += 1
            if users.count == 1:
                try:
                    users.exits.push_async_callback(self.close)
                    await self.open()
                    users.servers = await users.exits.enter_async_context(OpenServers(self.servers))
                    if self.servers:
                        self.make_tools()  # two of one name are better told now than by every rollout
                except BaseException:
                    await users.leave()
                    raise
        try:
            yield
        finally:
            async with users.changing:
                await users.leave()

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
        """The tools declared on the class, bound to this environment, by name; while it is open, those of the servers
        that rollouts share, too. Raises ConfigError where two have one name."""
        tools = [Tool(method) for method, mark in self._marked() if isinstance(mark, ToolMark)]
        named = {tool.name: tool for tool in tools}
        users = self._users()
        if users.servers is not None:
            add_tools(named, users.servers.tools.values())
        return named

    @asynccontextmanager
    async def equipped(self) -> AsyncIterator[dict[str, Tool]]:
        """The tools of one rollout, those of the servers that it has for itself included, as long as it lasts.

        Raises:
            ServerLost: one of these did not start.
            ConfigError: two tools have one name.
        """
        tools, servers = self.make_tools(), self._users().servers
        if servers is None:
            if self.servers:
                raise RuntimeError(f"{type(self).__name__} has servers, but is not open: async with env.opened()")
            yield tools
            return
        async with servers.of_rollout() as more:
            add_tools(tools, more)
            yield tools

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

    def content_hash(self) -> str:
        """Of its code, packaged data and options: 16 hex digits; "" where the class has no source that can be read."""
        return environment_hash(type(self), self.options)

    @functools.cached_property
    def _unnamed_ref(self) -> EnvironmentRef:
        """For who passed the object itself."""
        return EnvironmentRef(self.name or type(self).__name__, self.options, self.version, self.content_hash())

    def _scorers(self) -> list[tuple[Callable[..., Any], ScorerMark]]:
        return [(fn, mark) for fn, mark in self._marked() if isinstance(mark, ScorerMark)]

    def _users(self) -> _Users:
        users: _Users = self.__dict__.setdefault("_in_use", _Users())
        return users

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
    """Who is inside an environment that is open, a lock on coming and going, and what the last one out ends."""

    count: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)
    servers: OpenServers | None = None

    async def leave(self) -> None:
        """One is out."""
        self.count -= 1
        if self.count == 0:
            self.servers = None
            await self.exits.aclose()


def as_messages(answer: Answer) -> list[Message]:
    """Whatever `respond` returned, as messages."""
    if answer is None:
        return []
    if isinstance(answer, str):
        return [user(answer)]
    return [answer] if isinstance(answer, dict) else list(answer)
