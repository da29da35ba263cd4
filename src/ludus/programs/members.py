"""The environments of a run: one, or the members of a mixture, each with its name and what the recipe says of it.

Each member has a scheduler of its own, so groups never mix and every environment keeps its own settings; what was made
in a member of a mixture has a purpose that names it, such as "train@guess" or "eval:end@rg:gcd". The environment of a
run that has only one is called "", and its purposes and metrics stand alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.programs.recipe import EnvConfig, Recipe

AT = "@"
"""Between what rollouts were made for and the member that they were made in."""


@dataclass(frozen=True)
class Member:
    """One environment of a run."""

    name: str
    env: Environment
    config: EnvConfig

    @property
    def weight(self) -> float:
        return self.config.weight

    def purpose(self, what: str) -> str:
        """What its rollouts are made for.

        >>> Member("gcd", Environment(), EnvConfig(env="rg:gcd")).purpose("train")
        'train@gcd'
        """
        return f"{what}{AT}{self.name}" if self.name else what

    def key(self, metric: str) -> str:
        """The name of one of its metrics.

        >>> Member("gcd", Environment(), EnvConfig(env="rg:gcd")).key("reward/mean")
        'env/gcd/reward/mean'
        """
        return f"env/{self.name}/{metric}" if self.name else metric


def load_members(recipe: Recipe) -> list[Member]:
    """Build every environment of a recipe. Raises UsageError."""
    return [Member(name, load_environment(own.env, own.options), own) for name, own in recipe.environments.items()]


def roles_of(members: Iterable[Member]) -> list[str]:
    """The roles of all environments, in order of appearance."""
    return list(dict.fromkeys(role for member in members for role in member.env.roles))


def by_member(purposes: Iterable[str]) -> dict[str, list[str]]:
    """Purposes by the member that they name, "" where they name none; both in order of appearance.

    >>> by_member(["train@a", "eval:end@b", "eval:end@a"])
    {'a': ['train@a', 'eval:end@a'], 'b': ['eval:end@b']}
    """
    found: dict[str, list[str]] = {}
    for purpose in purposes:
        found.setdefault(purpose.partition(AT)[2], []).append(purpose)
    return found


def with_members(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Evaluations by name as result.json has them, each followed by those of the members that it is made of.

    >>> list(with_members({"end": {"mean": 0.5, "envs": {"a": {"mean": 0.4}, "b": {"mean": 0.6}}}}))
    ['end', 'end@a', 'end@b']
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, evaluation in evaluations.items():
        found[name] = evaluation
        found |= {f"{name}{AT}{member}": own for member, own in (evaluation.get("envs") or {}).items()}
    return found
