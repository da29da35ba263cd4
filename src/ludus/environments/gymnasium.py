"""Environments of gymnasium that can be read and acted in as text: `gymnasium:FrozenLake-v1`.

A plugin's are `gymnasium:MODULE:ID` (importing the module registers them) or `gymnasium:MODULE:CLASS`. The model sees
the drawing of an environment that can draw itself as text, any other's observation written out, and names its action by
word or number. What is no action is answered with what is, and costs a turn. The reward is the sum over the episode.
Left out: images, and actions that are made of parts of several kinds.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ludus.authoring.calling import call
from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.environments.gymnasium_text import Action, NotAnAction, Unreadable, as_action, check_readable, drawn, written
from ludus.environments.gymnasium_words import guide_to
from ludus.errors import ConfigError, MissingExtra, RolloutError, UnknownName
from ludus.seeds import derive
from ludus.types import Reply, Task

PACKAGE = "gymnasium"
NUM_TASKS = 10_000

Render = Literal["auto", "ansi", "none"]


class Gymnasium(Environment):
    """An environment of gymnasium, played in words."""

    version = "1"
    depends_on = ("gymnasium",)

    def __init__(
        self, world: str, render: Render = "auto", actions: list[str] | None = None, turns: int = 100, **settings: Any
    ) -> None:
        """
        Args:
            world: its id in gymnasium's registry, MODULE:ID, or MODULE:CLASS.
            render: "ansi" shows the environment's own drawing, "none" the observation, "auto" a drawing where there is one.
            actions: names of numbered actions, in order; known for the environments that gymnasium calls toy text, and
                for those that list them in an enumeration called `actions`.
            turns: replies before the episode is broken off.
            **settings: the environment's own parameters.
        """
        if render not in ("auto", "ansi", "none"):
            raise ValueError(f"render must be auto, ansi or none, got {render!r}")
        if turns < 1:
            raise ValueError(f"turns must be at least 1, got {turns}")
        self.world, self.max_turns, self.settings = world, turns, settings
        guide = guide_to(world)
        self.rules = guide.rules
        self.make = _maker(world)
        env = self.make(**settings)
        try:
            self.action_names = tuple(actions or guide.actions or _own_names(env))
            modes = env.metadata.get("render_modes") or ()
            if render == "ansi" and "ansi" not in modes:
                can = ", ".join(modes) or "nothing"
                raise ConfigError(f"{PACKAGE}:{world} can't draw itself as text; it offers: {can}")
            self.drawn = render != "none" and "ansi" in modes
            self.how_to_act = check_readable(env.observation_space, env.action_space, self.action_names, self.drawn)
        except Unreadable as error:
            raise ConfigError(f"{PACKAGE}:{world}: {error}") from None
        finally:
            env.close()

    def tasks(self, split: str) -> Iterator[Task]:
        """Episodes by their seed, each with the beginning that it shows."""
        env = self._open()
        try:
            for index in range(NUM_TASKS):
                seed = derive(PACKAGE, self.world, split, index) % 2**31
                seen = self._reset(env, seed)
                text = "\n".join(part for part in (self.rules, self.how_to_act, seen) if part)
                yield Task(prompt=text, info={"seed": seed}, id=f"{split}-{index}")
        finally:
            env.close()

    async def setup(self, ctx: Context) -> None:
        """Begin the episode. Raises RolloutError where its seed doesn't lead to what the prompt shows."""
        ctx.state = episode = Episode(await call(self._open))
        episode.seen = await call(self._reset, episode.env, ctx.task.info["seed"])
        if not ctx.task.messages()[0]["content"].endswith(episode.seen):
            raise RolloutError(f"{PACKAGE}:{self.world} begins in another way each time, also from the same seed")

    async def teardown(self, ctx: Context) -> None:
        """Close it."""
        if ctx.state is not None:
            await call(ctx.state.env.close)

    def respond(self, ctx: Context, reply: Reply) -> str | None:  # type: ignore[override]
        """Act, and show what comes of it."""
        episode: Episode = ctx.state
        try:
            action = as_action(reply.text, episode.env.action_space, self.action_names)
        except NotAnAction as error:
            episode.refused += 1
            return str(error)
        self._act(episode, action)
        return None if episode.over else episode.seen

    @reward
    def total(self, state: Episode) -> float:
        """The sum of the episode's rewards."""
        return state.total

    @metric
    def refused(self, state: Episode) -> float:
        """Replies that were no action."""
        return float(state.refused)

    @metric
    def finished(self, state: Episode) -> float:
        """Whether the episode came to its own end, rather than to a limit."""
        return float(state.terminated)

    def _open(self) -> Any:
        return self.make(**self.settings, **({"render_mode": "ansi"} if self.drawn else {}))

    def _reset(self, env: Any, seed: int) -> str:
        observation, _ = env.reset(seed=seed)
        return self._as_text(env, observation)

    def _act(self, episode: Episode, action: Action) -> None:
        observation, value, terminated, truncated, _ = episode.env.step(action)
        episode.total += float(value)
        episode.terminated, episode.over = bool(terminated), bool(terminated or truncated)
        episode.seen = self._as_text(episode.env, observation)

    def _as_text(self, env: Any, observation: Any) -> str:
        return drawn(env.render()) if self.drawn else written(observation, env.observation_space)


@dataclass
class Episode:
    """One episode under way."""

    env: Any
    seen: str = ""
    """What it looks like now."""
    total: float = 0.0
    refused: int = 0
    terminated: bool = False
    over: bool = False


def _own_names(env: Any) -> list[str]:
    """Names of numbered actions where an environment has an enumeration of them, as MiniGrid's do."""
    named, space = getattr(env.unwrapped, "actions", None), env.action_space
    if not isinstance(named, enum.EnumMeta) or not hasattr(space, "n") or len(named) != space.n:
        return []
    members: dict[str, Any] = dict(named.__members__)
    numbered = {member.value: name for name, member in members.items()}
    return [numbered[number] for number in range(space.n)] if set(numbered) == set(range(space.n)) else []


def families() -> list[str]:
    """Ids in gymnasium's registry. Raises MissingExtra."""
    return sorted(_gymnasium().registry)


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError:
        raise MissingExtra("environments of gymnasium", PACKAGE) from None
    return gymnasium


def _maker(world: str) -> Any:
    """What makes the environment. Raises UnknownName, ConfigError."""
    gymnasium = _gymnasium()
    module_name, colon, name = world.rpartition(":")
    if colon:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ConfigError(f"{PACKAGE}:{world}: can't import {module_name}: {error}") from None
        kind = getattr(module, name, None)
        if isinstance(kind, type) and issubclass(kind, gymnasium.Env):
            return kind
    if name not in gymnasium.registry:
        raise UnknownName(f"{PACKAGE} environment", name, gymnasium.registry, f"ludus env list {PACKAGE}:")

    def make(**settings: Any) -> Any:
        try:
            return gymnasium.make(name, disable_env_checker=True, **settings)
        except gymnasium.error.Error as error:  # a dependency or version that is not there
            raise ConfigError(f"{PACKAGE}:{world} can't be made: {' '.join(str(error).split())}") from None

    return make
