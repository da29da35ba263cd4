"""Options of commands that play a model in one environment, beside `ludus eval`: which model, how, at what price."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ludus.cli.evaluate import COUNT, price_option, role_price_option
from ludus.cli.options import role_models_of

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def model_option(help_: str) -> Callable[[CommandT], CommandT]:
    """`--model`."""
    return click.option("-m", "--model", required=True, metavar="M", help=help_)


def running_options(command: CommandT) -> CommandT:
    """Options of how rollouts are run."""
    options = [
        click.option("--concurrency", type=COUNT, metavar="N", default=64, show_default=True, help="Rollouts at once."),
        click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
            help="Of everything that is drawn."),
        click.option("--max-tokens", type=COUNT, metavar="N", show_default="the environment's", help="Tokens a reply."),
        click.option("--temperature", type=click.FloatRange(min=0), metavar="X",
            show_default="the environment's, or 1", help="0 is greedy."),
        click.option("--role-model", "role_models", multiple=True, callback=role_models_of, metavar="ROLE=M",
            show_default="the model itself", help="Who plays another role; may be repeated."),
        role_price_option,
        click.option("--base-url", metavar="URL", help="Of the API behind openai:NAME, whose key is $OPENAI_API_KEY."),
        price_option,
        click.option("--timeout-s", metavar="X", type=click.FloatRange(min=0, min_open=True), default=600,
            show_default=True, help="Seconds a rollout may take."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
