"""`ludus optimize`: a better system prompt, and what it is worth on tasks that it was not made for."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.options import (
    arg_option,
    count_option,
    env_argument,
    file_name,
    json_option,
    model_option,
    new_folder,
    open_environment,
    out_option,
    running_options,
    samples_option,
)
from ludus.cli.output import align, decimals, faint, heading, interval, plus_minus, say, say_json, short
from ludus.cli.stopping import INTERRUPTED, Stopper
from ludus.display.watch import watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from ludus.cli.access import Accesses
    from ludus.programs.optimize import Optimized


@click.command("optimize")
@env_argument
@model_option("Whose prompt it is: a model folder, a run folder or openai:NAME.")
@click.option(
    "--reflection-model", metavar="M", show_default="the model itself", help="Who reflects and proposes prompts."
)
@count_option("--num-train", default=60, help_="Tasks to reflect on.")
@count_option("--num-val", default=40, help_="Tasks that decide.")
@count_option("--num-test", default=100, help_="Held-out tasks, at the end.")
@samples_option(1, "Rollouts a held-out task.")
@count_option("--max-rollouts", default=500, help_="For the search.")
@arg_option
@out_option("a new runs/optimize-ENV-MODEL-N", "The run folder; one that was interrupted is gone on with.")
@running_options
@json_option
def optimize(
    env: str, model: str, reflection_model: str | None, args: tuple[str, ...], out: Path | None, as_json: bool,
    role_models: dict[str, str], access: Accesses, **settings: Any,
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
    reflecting = reflection_model or model
    access.check({model, reflecting}, role_models.values())
    folder = out or new_folder(f"optimize-{file_name(env)}-{file_name(model)}")
    stopper = Stopper("comparing the best prompt so far")
    with watching(f"{env} · {model} → {folder}", {}) as watcher:

        def on_start(stop: Callable[[], object]) -> None:
            watcher.begin()
            stopper.stops(stop)

        result = stopper.run(
            partial(
                optimize_async, environment, model, config, folder, reflection_model=reflection_model,
                access=access.of(model), reflection_access=access.of(reflecting), role_models=role_models,
                role_access=access.of_roles(role_models), progress=watcher.see, on_start=on_start,
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
