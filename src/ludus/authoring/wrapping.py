"""`Wrapper`: an environment around another one.

A wrapper has the tasks, tools, loop and scorers of what it is around, unchanged, and adds to them: what the model is told
before a reply and asked after it (with a `Through` in the model's place), scorers, roles. Task ids stay, so an evaluation
with a wrapper and one without it can be compared task by task. Wrappers go around each other.
"""

from __future__ import annotations

import difflib
import inspect
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from ludus.authoring.calling import call, inject, wanted
from ludus.authoring.content import environment_hash
from ludus.authoring.context import Context
from ludus.authoring.declare import ScorerMark
from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.authoring.tools import Tool
from ludus.errors import ConfigError, UnknownName
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, EnvironmentRef, Message, Rollout, Task, content_hash

TAKEN_OVER = (
    "splits", "roles", "isolated", "max_turns", "system_prompt", "failure_reward", "success_reward", "sampling",
    "fails_with_model", "pinned",
)  # fmt: skip
"""Attributes that a wrapper has from what it is around."""
OF_GROUPS = frozenset({"task", "rollout", "models"})
"""What a scorer may ask for to be asked when the rollouts of a group have been compared."""
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
    once: ClassVar[bool] = True
    """Whether it has no meaning around itself."""

    def __init__(self, env: str | Environment, **options: Any) -> None:
        if isinstance(env, Environment) and options:
            raise ConfigError(f"{self.prefix}: {', '.join(options)} can't be given beside an environment that is built")
        self.inner = env if isinstance(env, Environment) else self._load(env, options)
        self._check_place()
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

    def _check_place(self) -> None:
        """Raises ConfigError where what is inside does not go there."""
        inside: Environment = self.inner
        if isinstance(inside, Wrapper) and inside.outermost:
            raise ConfigError(f"{inside.prefix} goes around {self.prefix}: {inside.prefix}:{self.prefix}:ENV")
        while self.once and isinstance(inside, Wrapper):
            if inside.prefix == self.prefix:
                raise ConfigError(f"{self.prefix}: is around {inside.inner.describe().id} already; once is enough")
            inside = inside.inner

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
        """In the main role `demonstrate`; in others the environment's expert, and none in those of the wrapper."""
        if role in self.extra_roles:
            return None
        return super().demonstrator_of(role) if role == MAIN_ROLE else self.inner.demonstrator_of(role)

    def make_tools(self) -> dict[str, Tool]:
        """The environment's tools."""
        return self.inner.make_tools()

    @asynccontextmanager
    async def equipped(self) -> AsyncIterator[dict[str, Tool]]:
        """The environment's tools, as long as a rollout lasts."""
        async with self.inner.equipped() as tools:
            yield tools

    def own_scorers(self) -> list[Scorer]:
        """Those of the wrapper that score single rollouts: they find in `rollout.rewards` what the others said."""
        return super().scorers()

    def scorers(self) -> list[Scorer]:
        """The environment's, then those of the wrapper."""
        return [*self.inner.scorers(), *(own for own in self.own_scorers() if not self._waits(own))]

    def group_scorers(self) -> list[Scorer]:
        """The environment's, then those of the wrapper: all of them where rewards come of comparing rollouts."""
        late = [(_of_each(fn), mark) for fn, mark in self.own_scorers() if self._waits((fn, mark))]
        return [*self.inner.group_scorers(), *late, *super().group_scorers()]

    def _waits(self, own: Scorer) -> bool:
        """Whether a scorer of the wrapper's comes after the environment's comparison, and can."""
        return bool(self.inner.group_scorers()) and OF_GROUPS.issuperset(wanted(own[0]))

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


def _of_each(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A scorer of single rollouts as one of groups."""

    async def ask(rollout: Rollout, models: Mapping[str, Model]) -> Any:
        return await call(fn, **inject(fn, {"task": rollout.task, "rollout": rollout, "models": models}))

    async def with_models(group: Sequence[Rollout], models: Mapping[str, Model]) -> list[Any]:
        return [await ask(rollout, models) for rollout in group]

    async def alone(group: Sequence[Rollout]) -> list[Any]:
        return [await ask(rollout, {}) for rollout in group]

    return with_models if "models" in wanted(fn) else alone
