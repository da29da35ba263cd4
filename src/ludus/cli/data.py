"""`ludus data`: training data from rollouts."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.lazy import LazyGroup
from ludus.cli.options import (
    arg_option,
    count_option,
    env_argument,
    file_name,
    json_option,
    model_option,
    num_tasks_option,
    open_environment,
    out_option,
    running_options,
    samples_option,
    split_option,
)
from ludus.cli.output import align, faint, heading, say, say_json
from ludus.cli.stopping import INTERRUPTED, Stopper
from ludus.display.watch import watching

if TYPE_CHECKING:
    from ludus.cli.access import Accesses
    from ludus.programs.data import Made
    from ludus.rollouts.scheduler import Scheduler

SHARE = click.FloatRange(0, 1)


@click.group("data", cls=LazyGroup, lazy={"make": "ludus.cli.data:make"})
def data() -> None:
    """Make training data."""


@click.command("make")
@env_argument
@model_option("Who plays: a model folder, a run folder, openai:NAME or demonstrator.")
@split_option("train")
@num_tasks_option(1000)
@samples_option(4)
@click.option("--min-reward", type=float, metavar="X", show_default="the environment's success", help="Least reward.")
@click.option(
    "--min-agreement", type=SHARE, metavar="X", default=0, show_default=True,
    help="Least share of a task's samples that give the same answer.",
)  # fmt: skip
@click.option(
    "--min-novelty", type=SHARE, metavar="X", default=0, show_default=True,
    help="Least distance from every example before, 0 to 1; 0 removes exact duplicates only.",
)  # fmt: skip
@count_option("--per-task", default=1, help_="Examples a task, at most.")
@arg_option
@out_option("data/ENV-MODEL")
@running_options
@json_option
def make(
    env: str, model: str, args: tuple[str, ...], out: Path | None, as_json: bool, split: str, num_tasks: int,
    samples: int, min_reward: float | None, min_agreement: float, min_novelty: float, per_task: int,
    role_models: dict[str, str], access: Accesses, **settings: Any,
) -> None:  # fmt: skip
    """Make chat data for fine-tuning of what a model does well in ENV, with a data card.

    \b
        ludus data make guess --model runs/guess -n 500 --min-novelty 0.2
    """
    from ludus.programs.data import DataConfig, make_data

    config = DataConfig(
        split=split, num_tasks=num_tasks, samples=samples, min_reward=min_reward, min_agreement=min_agreement,
        min_novelty=min_novelty, per_task=per_task,
    )  # fmt: skip
    environment, folder = open_environment(env, args), out or Path("data") / f"{file_name(env)}-{file_name(model)}"
    access.check([model], role_models.values())
    reached = {**vars(access.of(model)), "role_models": role_models, "role_access": access.of_roles(role_models)}
    stopper = Stopper("finishing the rollouts that run")
    with watching(f"{env} · {model} → {folder}", {}) as watcher:

        def on_start(scheduler: Scheduler) -> None:
            watcher.begin()
            stopper.stops(partial(setattr, scheduler, "stopping", True))

        made = stopper.run(
            partial(
                make_data, environment, model, config, folder, progress=watcher.see, on_start=on_start, **reached,
                **settings,
            )
        )  # fmt: skip
    if as_json:
        import msgspec

        say_json(msgspec.to_builtins(made))
    else:
        for line in lines(made):
            say(line)
    if stopper.asked:
        sys.exit(INTERRUPTED)


def lines(made: Made) -> list[str]:
    """The result as text."""
    from ludus.programs.data.filters import REASONS

    told = [f"\n{heading(made.env)}  {faint(made.model)}\n"]
    told.append(f"  {made.num_examples} examples of {made.num_rollouts} rollouts, mean reward {made.mean_reward:.3f}")
    table = [[str(count), faint(REASONS[reason])] for reason, count in made.left_out.items()]
    told += ["", "  left out", *("  " + line for line in align(table, right=[0]))] if table else []
    if made.stopped:
        told.append(f"  ended early: {made.stopped}; the same command goes on")
    return [*told, "", f"  {made.file}", f"  {made.card}"]
