"""`Wrapper`: an environment around another one, and `Through`: a model around another one.

A wrapper has the tasks, tools, loop and scorers of what it is around, unchanged, and adds to them: what the model is told
before a reply and asked after it (with a `Through` in the model's place), scorers, roles. Task ids stay, so an evaluation
with a wrapper and one without it can be compared task by task. Wrappers go around each other.

Out of reach: agents that call `ctx.model.base_url` themselves see the model as it is.
"""

from __future__ import annotations

import difflib
import inspect
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from ludus.authoring.calling import call, inject
from ludus.authoring.content import environment_hash
from ludus.authoring.context import Context
from ludus.authoring.conversations import opening, with_text
from ludus.authoring.declare import ScorerMark
from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.authoring.tools import Tool
from ludus.errors import ConfigError, UnknownName
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Call, EnvironmentRef, Message, Reply, Task, content_hash

TAKEN_OVER = (
    "splits", "roles", "isolated", "max_turns", "system_prompt", "failure_reward", "success_reward", "sampling",
    "fails_with_model", "pinned",
)  # fmt: skip
"""Attributes that a wrapper has from what it is around."""
Scorer = tuple[Callable[..., Any], ScorerMark]


class Wrapper(Environment):
    """Base of environments around another one.

    Args:
        env: an environment, or what `ludus eval ENV` takes.
        options: of the environment, where `env` is a name.
    """

    prefix: ClassVar[str] = "wrapped"
    """Its name before a colon: PREFIX:ENV."""
    extra_roles: tuple[str, ...] = ()
    """Roles beside those of the environment."""
    outermost: ClassVar[bool] = False
    """Whether no other wrapper can go around it."""

    def __init__(self, env: str | Environment, **options: Any) -> None:
        if isinstance(env, Environment) and options:
            raise ConfigError(f"{self.prefix}: {', '.join(options)} can't be given beside an environment that is built")
        self.inner = env if isinstance(env, Environment) else self._load(env, options)
        if isinstance(self.inner, Wrapper) and self.inner.outermost:
            raise ConfigError(f"{self.inner.prefix} goes around {self.prefix}: {self.inner.prefix}:{self.prefix}:ENV")
        vars(self).update({name: getattr(self.inner, name) for name in TAKEN_OVER})
        if taken := set(self.extra_roles) & set(self.inner.roles):
            raise ConfigError(f"{self.prefix}: {self.inner.describe().id} has a role {taken.pop()!r} of its own")
        self.roles = (*self.inner.roles, *self.extra_roles)
        self.version = f"{type(self).version}+{self.inner.version}"

    def _load(self, env: str, options: dict[str, Any]) -> Environment:
        """Build what is inside. A name that is nearly that of an own option is told so, rather than what is inside has."""
        try:
            return load_environment(env, options)
        except UnknownName as error:
            parameters = inspect.signature(type(self).__init__).parameters.values()
            own = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
            if error.name in options and difflib.get_close_matches(error.name, own, cutoff=0.7):
                raise UnknownName(f"option of {self.prefix}:{env}", error.name, own) from None
            raise

    # --- what wrappers override: all of it is the inner environment's ---------------------------------------------

    def tasks(self, split: str) -> Iterable[Task]:
        """Those of the environment."""
        return self.inner.tasks(split)

    async def setup(self, ctx: Context) -> None:
        """That of the environment."""
        await call(self.inner.setup, ctx)

    async def teardown(self, ctx: Context) -> None:
        """That of the environment."""
        await call(self.inner.teardown, ctx)

    async def run(self, ctx: Context) -> None:
        """The loop of the environment."""
        await call(self.inner.run, ctx)

    async def demonstrate(self, ctx: Context, random: random.Random) -> Any:  # type: ignore[override]
        """The play of the environment's expert; `random` says that two plays of a task may differ."""
        return await call(self.inner.demonstrate, **inject(self.inner.demonstrate, ctx.injectable()))

    # --- the rest of the contract ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open as long as anybody is inside."""
        async with self.inner.opened(), super().opened():
            yield

    def opening(self, task: Task) -> list[Message]:
        """The conversation before the first reply, as the environment has it."""
        return self.inner.opening(task)

    @property
    def can_demonstrate(self) -> bool:
        return self.inner.can_demonstrate

    def demonstrator_of(self, role: str) -> Callable[..., Any] | None:
        """That of the environment, where the role has one to itself, such as rules that play a user."""
        common = self.inner.demonstrator_of(MAIN_ROLE)
        own = self.inner.demonstrator_of(role) if role in self.inner.roles else None
        return own if own not in (None, common) else super().demonstrator_of(role)

    def make_tools(self) -> dict[str, Tool]:
        """The environment's tools."""
        return self.inner.make_tools()

    @asynccontextmanager
    async def equipped(self) -> AsyncIterator[dict[str, Tool]]:
        """The environment's tools, as long as a rollout lasts."""
        async with self.inner.equipped() as tools:
            yield tools

    def scorers(self) -> list[Scorer]:
        """The environment's, then those of the wrapper, which find in `rollout.rewards` what the others said."""
        return [*self.inner.scorers(), *super().scorers()]

    def group_scorers(self) -> list[Scorer]:
        """The environment's, then those of the wrapper."""
        return [*self.inner.group_scorers(), *super().group_scorers()]

    def describe(self) -> EnvironmentRef:
        """PREFIX:ENV, with its own options and the environment's."""
        if self.ref is not None:
            return self.ref
        of = self.inner.describe()
        own = {key: value for key, value in self.options.items() if key != "env"}
        return EnvironmentRef(f"{self.prefix}:{of.id}", {**of.options, **own}, self.version, self.content_hash())

    def content_hash(self) -> str:
        """Of its own code and options, and of what is inside."""
        own = {key: value for key, value in self.options.items() if key != "env"}
        hashes = environment_hash(type(self), own), self.inner.content_hash()
        return content_hash(hashes) if all(hashes) else ""


class Through:
    """Implements `ludus.protocols.Model` around another one, whose replies it passes on.

    What a subclass asks on its own account becomes part of the conversation that the model sees, though its caller's has
    nothing of it: so a rollout stays one sequence. Callers have to carry on one conversation.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._asides: list[tuple[int, Message, list[Message]]] = []
        """Place and content of a reply in the caller's conversation, and what was said before it that is not there."""

    async def chat(self, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any) -> Reply:
        """See `ludus.protocols.Model.chat`."""
        return await self.ask("", messages, tools=tools, **sampling)

    async def ask(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """What subclasses override: the reply to the caller's conversation, recorded under a sub-agent's name or ""."""
        return await self.below(agent, messages, tools=tools, **sampling)

    async def below(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """The reply of the model underneath to a conversation."""
        if isinstance(self._model, Through):  # whose additions are part of it, whoever it is recorded under
            return await self._model.ask(agent, messages, tools=tools, **sampling)
        model = self._model.subagent(agent) if agent else self._model
        return await model.chat(messages, tools=tools, **sampling)

    @property
    def base_url(self) -> str:
        """The model's own address: nothing is added for those who call there."""
        return self._model.base_url

    @property
    def api_key(self) -> str:
        """Of that address."""
        return self._model.api_key

    @property
    def openai(self) -> Any:
        """The model's own client."""
        return self._model.openai

    def subagent(self, name: str) -> Model:
        """The model underneath: a sub-agent has a conversation of its own."""
        return self._model.subagent(name)

    async def adopt(self, name: str) -> None:
        """See `ludus.protocols.Model.adopt`."""
        await self._model.adopt(name)

    async def calls(self) -> Sequence[Call]:
        """See `ludus.protocols.Model.calls`."""
        return await self._model.calls()

    def whole(self, messages: Sequence[Message]) -> list[Message]:
        """The caller's conversation with everything that was said beside it."""
        shown: list[Message] = []
        asides = {place: (reply, said) for place, reply, said in self._asides}
        for place, message in enumerate(messages):
            reply, said = asides.get(place, (None, []))
            shown += [*said, message] if message == reply else [message]
        return shown

    def remember(self, messages: Sequence[Message], said: list[Message], reply: Reply) -> None:
        """The reply to `messages` came after `said`."""
        if said:
            self._asides.append((len(messages), dict(reply.message), said))


def noted(messages: Sequence[Message], note: str) -> list[Message]:
    """A conversation whose opening ends with a note of the user's."""
    start = opening(messages)
    return [*with_text(start, note), *messages[len(start) :]]


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
