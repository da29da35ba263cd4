"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.output import RESULTS

if TYPE_CHECKING:
    from ludus.authoring.environment import Environment
    from ludus.programs.members import Member

env_argument = click.argument("env", metavar="ENV")


def _alone(ctx: click.Context, parameter: click.Parameter, as_json: bool) -> bool:
    """With --json, what environments print goes to stderr."""
    if as_json:
        ctx.meta[RESULTS] = sys.stdout
        ctx.with_resource(redirect_stdout(sys.stderr))
    return as_json


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_alone, help="Print one JSON object on stdout, and nothing else."
)
arg_option = click.option(
    "--arg", "args", multiple=True, metavar="KEY=VALUE", help="An option of the environment; may be repeated."
)


def role_models_of(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """ROLE=MODEL as a table. Raises click.BadParameter."""
    pairs = [value.partition("=") for value in values]
    for role, _, model in pairs:
        if not (role and model):
            raise click.BadParameter(f"expected ROLE=MODEL, such as opponent=demonstrator, got {role!r}")
    return {role: model for role, _, model in pairs}


def split_option(default: str) -> Callable[[Any], Any]:
    """`--split` with a default."""
    return click.option(
        "--split", metavar="NAME", default=default, show_default=True, help="Which of the environment's tasks."
    )


def open_environment(spec: str, args: Sequence[str]) -> Environment:
    """The environment that ENV and its --arg options name. Raises UsageError."""
    from ludus import config
    from ludus.authoring.loading import load_environment

    return load_environment(spec, config.merge({}, args))


def open_members(specs: Sequence[str], args: Sequence[str]) -> list[Member]:
    """The environments that several ENV name, with what recipes among them say of theirs. Raises UsageError."""
    from ludus import config
    from ludus.errors import ConfigError
    from ludus.programs.members import Member, load_members
    from ludus.programs.recipe import EnvConfig, Recipe

    if len(specs) == 1 and not specs[0].endswith(".toml"):
        return [Member("", open_environment(specs[0], args), EnvConfig(env=specs[0]))]
    if args:
        raise click.UsageError("--arg is for one environment; of several, each has its options in a recipe's [[envs]]")
    members: list[Member] = []
    for spec in specs:
        if spec.endswith(".toml"):
            recipe = config.load(Recipe, Path(spec))
            for member in load_members(recipe):
                limited = member.config.model_copy(update={"max_tokens": recipe.max_tokens(member.config)})
                members.append(replace(member, name=member.config.label, config=limited))
        else:
            own = EnvConfig(env=spec)
            members.append(Member(own.label, open_environment(spec, ()), own))
    names = [member.name for member in members]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two of the environments are called {name}: leave one out, or name them in a recipe")
    return members


def file_name(spec: str) -> str:
    """What a name of an environment or model becomes as a part of a file's name.

    >>> file_name("openai:org/large"), file_name("rg:spell_backward")
    ('openai-org-large', 'rg-spell_backward')
    """
    path = Path(spec)
    name = path.resolve().name if path.exists() else path.name if ".py" in path.suffix else spec
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
