"""`ludus train`: from a recipe to a better model, watched on the way, summed up at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.options import json_option
from ludus.cli.output import note, say, say_json
from ludus.cli.stopping import INTERRUPTED, Stopper
from ludus.display.watch import watching

if TYPE_CHECKING:
    from ludus.programs.recipe import Recipe
    from ludus.programs.training import Training


@click.command("train")
@click.argument("recipe", required=False, metavar="[RECIPE]", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--resume",
    "resumed",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with a run from its newest state.",
)
@click.option("--dry-run", is_flag=True, help="Only say what it will take: memory by part, tokens, time.")
@json_option
def train(recipe: Path | None, overrides: tuple[str, ...], resumed: Path | None, dry_run: bool, as_json: bool) -> None:
    """Train a model as RECIPE (a TOML file) says.

    KEY=VALUE sets a value of the recipe, such as rl.steps=10. Ctrl-C finishes what is running and saves; --resume goes
    on from there.

    \b
        ludus train examples/guess.toml name=mine seed=1
        ludus train --resume runs/mine
    """
    if (recipe is None) == (resumed is None):
        raise click.UsageError("give either a RECIPE or --resume RUN")
    from ludus.programs.recipe import Recipe

    if resumed is not None:
        checked = _recorded_recipe(resumed)
    else:
        from ludus import config

        assert recipe is not None  # one of the two is given
        checked = config.load(Recipe, recipe, overrides)
    if dry_run:
        _foresee(checked, as_json=as_json)
        return
    stopper = Stopper("finishing what is running, then saving")
    result = _run(checked, resumed, stopper)
    _print(result, as_json=as_json)
    if stopper.asked:
        command = click.get_current_context().find_root().command_path
        note(f"stopped early; go on with: {command} train --resume {result['run']}")
        sys.exit(INTERRUPTED)


def _foresee(recipe: Recipe, *, as_json: bool) -> None:
    """Say what a recipe takes."""
    from dataclasses import asdict

    from ludus.cli.foreseen import foreseen
    from ludus.programs.dry_run import dry_run
    from ludus.programs.members import load_members
    from ludus.programs.train import check_recipe

    members = load_members(recipe)
    check_recipe(recipe, members)
    found = dry_run(recipe, members)
    if as_json:
        say_json({**asdict(found), "memory": found.memory.parts()})
        return
    for line in foreseen(found):
        say(line)


def _recorded_recipe(run: Path) -> Recipe:
    """What a run folder says it is; opening it first makes the better error."""
    from ludus import config
    from ludus.programs.recipe import Recipe
    from ludus.store import RunFolder

    with RunFolder.open(run):
        return config.load(Recipe, run / "config.toml")


def _run(recipe: Recipe, resumed: Path | None, stopper: Stopper) -> dict[str, Any]:
    from ludus.programs import train as program

    folder = resumed or Path(recipe.runs) / recipe.name

    def on_start(training: Training) -> None:
        watcher.begin()
        stopper.stops(training.stop)

    with watching(f"{recipe.title} · {recipe.model} → {folder}", recipe.num_steps) as watcher:
        if resumed is not None:
            return stopper.run(lambda: program.resume(resumed, progress=watcher.see, on_start=on_start))
        return stopper.run(lambda: program.train(recipe, progress=watcher.see, on_start=on_start))


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(result)
        return
    from ludus.cli.summary import summary

    for line in summary(result):
        say(line)
