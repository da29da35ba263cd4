"""`ludus optimize`: a better system prompt, and what it is worth on tasks that it was not made for."""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.evaluate import COUNT, price_of
from ludus.cli.options import arg_option, env_argument, file_name, json_option, open_environment
from ludus.cli.output import align, decimals, faint, heading, interval, plus_minus, say, say_json, short
from ludus.cli.running import model_option, running_options
from ludus.cli.stopping import INTERRUPTED, Stopper
from ludus.display.watch import watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from ludus.programs.optimize import Optimized


@click.command("optimize")
@env_argument
@model_option("Whose prompt it is: a model folder, a run folder or openai:NAME.")
@click.option(
    "--reflection-model", metavar="M", show_default="the model itself", help="Who reflects and proposes prompts."
)
@click.option("--reflection-price", callback=price_of, metavar="IN,OUT", help="As --price, of the model that reflects.")
@click.option("--num-train", type=COUNT, metavar="N", default=60, show_default=True, help="Tasks to reflect on.")
@click.option("--num-val", type=COUNT, metavar="N", default=40, show_default=True, help="Tasks that decide.")
@click.option("--num-test", type=COUNT, metavar="N", default=100, show_default=True, help="Held-out tasks, at the end.")
@click.option(
    "-k", "--samples", type=COUNT, metavar="N", default=1, show_default=True, help="Rollouts a held-out task."
)
@click.option("--max-rollouts", type=COUNT, metavar="N", default=500, show_default=True, help="For the search.")
@arg_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    show_default="a new runs/optimize-ENV-MODEL-N",
    help="The run folder; one that was interrupted is gone on with.",
)
@running_options
@json_option
def optimize(
    env: str, model: str, reflection_model: str | None, args: tuple[str, ...], out: Path | None, as_json: bool,
    reflection_price: tuple[float, float] | None, role_models: dict[str, str],
    role_prices: dict[str, tuple[float, float]], base_url: str | None, price: tuple[float, float] | None, **settings: Any,
) -> None:  # fmt: skip
    """Look for a better system prompt for a model in ENV, with GEPA.

    Prompts are tried on training tasks. Then the environment with the best of them is compared with the environment as it
    is, on held-out tasks, task by task.

    \b
        ludus optimize reason-suite --model openai:NAME --price 0.25,2
        ludus eval prompt:reason-suite --arg file=FOLDER/best_prompt.txt --model openai:NAME
    """
    from ludus.programs.optimize import OptimizeConfig, optimize_async

    environment, config = open_environment(env, args), OptimizeConfig(**settings)
    folder = out or _new_folder(env, model)
    stopper = Stopper("comparing the best prompt so far")
    with watching(f"{env} · {model} → {folder}", {}) as watcher:

        def on_start(stop: Callable[[], object]) -> None:
            watcher.begin()
            stopper.stops(stop)

        result = stopper.run(
            partial(
                optimize_async, environment, model, config, folder, reflection_model=reflection_model,
                reflection_price=reflection_price, base_url=base_url, price=price, role_models=role_models,
                role_prices=role_prices, progress=watcher.see, on_start=on_start,
            )
        )  # fmt: skip
    if as_json:
        import msgspec

        say_json(msgspec.to_builtins(result))
    else:
        for line in lines(result):
            say(line)
    if stopper.asked:
        sys.exit(INTERRUPTED)


def lines(result: Optimized) -> list[str]:
    """The result as text."""
    before, after = result.before, result.after
    table = [[heading(name) for name in ("held-out tasks", "reward", "95 % interval")]]
    for name, found in (("before", before), ("after", after)):
        table.append([name, plus_minus(found["mean"], found["se"]), interval(found["interval"])])
    table.append(["gain", decimals(result.gain, signed=True), interval(result.interval, signed=True)])
    spent = f"{short(result.tokens['prompt'])} tokens in, {short(result.tokens['completion'])} out"
    effort = f"{result.num_rollouts} rollouts, {result.num_prompts} prompts kept, {result.num_reflections} reflections"
    told = [f"\n{heading(result.env)}  {faint(result.model)}\n", *("  " + line for line in align(table, right=[1, 2]))]
    told += ["", f"  {result.verdict()}", f"  {effort}, {spent}" + (f", ${result.cost:.4f}" if result.cost else "")]
    if result.num_excluded:
        told.append(f"  {result.num_excluded} rollouts of the search failed through no fault of the model")
    if result.stopped:
        told.append(f"  ended early: {result.stopped}")
    shown = result.prompt or "(none: nothing did better)"
    return [*told, "", heading("  prompt"), *(f"  {line}" for line in shown.splitlines()), "", f"  {result.out}"]


def _new_folder(env: str, model: str) -> Path:
    stem = f"optimize-{file_name(env)}-{file_name(model)}"
    paths = (Path("runs") / f"{stem}-{number}" for number in itertools.count(1))
    return next(path for path in paths if not path.exists())
