"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ludus.authoring.environment import Environment

env_argument = click.argument("env", metavar="ENV")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else.")
arg_option = click.option(
    "--arg", "args", multiple=True, metavar="KEY=VALUE", help="An option of the environment; may be repeated."
)


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


def file_name(spec: str) -> str:
    """What a name of an environment or model becomes as a part of a file's name.

    >>> file_name("openai:org/large"), file_name("rg:spell_backward")
    ('openai-org-large', 'rg-spell_backward')
    """
    path = Path(spec)
    name = path.resolve().name if path.exists() else path.name if ".py" in path.suffix else spec
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
