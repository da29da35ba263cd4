"""Options that several commands share, each defined once, and what they stand for.

A function makes an option whose help or default differs between commands; the others are options as they are.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ludus.cli.access import access_options
from ludus.cli.output import RESULTS

if TYPE_CHECKING:
    from ludus.authoring.environment import Environment
    from ludus.programs.members import Member

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
Option = Callable[[Any], Any]
"""What click puts above a command."""
COUNT = click.IntRange(min=1)

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


def _role_models(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """ROLE=MODEL as a table. Raises click.BadParameter."""
    pairs = [value.partition("=") for value in values]
    for role, _, model in pairs:
        if not (role and model):
            raise click.BadParameter(f"expected ROLE=MODEL, such as opponent=demonstrator, got {role!r}")
    return {role: model for role, _, model in pairs}


def model_option(help_: str, *, required: bool = True) -> Option:
    """`--model`."""
    return click.option("-m", "--model", required=required, metavar="M", help=help_)


def split_option(default: str) -> Option:
    """`--split`."""
    return click.option(
        "--split", metavar="NAME", default=default, show_default=True, help="Which of the environment's tasks."
    )


def count_option(*names: str, help_: str, default: int | str | None = None) -> Option:
    """An option for a number of things, at least one; a default that is a text says what is taken without it."""
    number = default if isinstance(default, int) else None
    return click.option(
        *names, type=COUNT, metavar="N", default=number, help=help_,
        show_default=default if isinstance(default, str) else number is not None,
    )  # fmt: skip


def num_tasks_option(default: int, help_: str = "Tasks, from the split's first on.") -> Option:
    """`--num-tasks`."""
    return count_option("-n", "--num-tasks", default=default, help_=help_)


def samples_option(default: int, help_: str = "Rollouts a task.") -> Option:
    """`--samples`."""
    return count_option("-k", "--samples", default=default, help_=help_)


def concurrency_option(default: int = 64, help_: str = "Rollouts at once.") -> Option:
    """`--concurrency`."""
    return count_option("--concurrency", default=default, help_=help_)


def seed_option(help_: str = "Of everything that is drawn.", default: int | str = 0) -> Option:
    """`--seed`; a default that is a text says what is taken without it."""
    number = default if isinstance(default, int) else None
    return click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", default=number, help=help_,
        show_default=default if isinstance(default, str) else True,
    )  # fmt: skip


def temperature_option(default: float | str = "the environment's, or 1") -> Option:
    """`--temperature`; a default that is a text says what is taken without it."""
    number = None if isinstance(default, str) else default
    return click.option(
        "--temperature", type=click.FloatRange(min=0), metavar="X", default=number, help="0 is greedy.",
        show_default=default if isinstance(default, str) else True,
    )  # fmt: skip


def role_models_option(otherwise: str = "the model itself", help_: str = "Who plays another role") -> Option:
    """`--role-model`."""
    return click.option(
        "--role-model", "role_models", multiple=True, callback=_role_models, metavar="ROLE=M", show_default=otherwise,
        help=f"{help_}, such as judge=openai:NAME; may be repeated.",
    )  # fmt: skip


def out_option(otherwise: str, help_: str = "The run folder; gone on with if it is there.") -> Option:
    """`--out`."""
    return click.option(
        "--out", type=click.Path(path_type=Path), metavar="FOLDER", show_default=otherwise, help=help_
    )  # fmt: skip


max_tokens_option = count_option("--max-tokens", default="the environment's", help_="Tokens a reply.")
timeout_option = click.option(
    "--timeout-s", metavar="X", type=click.FloatRange(min=0, min_open=True), default=600, show_default=True,
    help="Seconds a rollout may take.",
)  # fmt: skip
host_option = click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every interface."
)
port_option = click.option(
    "--port", metavar="N", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
purpose_option = click.option("--purpose", metavar="P", help="Only rollouts made for this: train, eval, eval:end, ...")


def running_options(command: CommandT) -> CommandT:
    """Options of how rollouts are run, and of models behind APIs; the latter reach the command as `access`."""
    options: list[Option] = [
        concurrency_option(), seed_option(), max_tokens_option, temperature_option(), role_models_option(),
        access_options, timeout_option,
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


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


def new_folder(stem: str) -> Path:
    """The first of runs/STEM-1, runs/STEM-2, ... that is not there."""
    paths = (Path("runs") / f"{stem}-{number}" for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def file_name(spec: str) -> str:
    """What a name of an environment or model becomes as a part of a file's name.

    >>> file_name("openai:org/large"), file_name("rg:spell_backward")
    ('openai-org-large', 'rg-spell_backward')
    """
    path = Path(spec)
    name = path.resolve().name if path.exists() else path.name if ".py" in path.suffix else spec
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
