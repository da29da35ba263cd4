"""`ludus eval`: any model in any environment, as one row of numbers that can be trusted."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.options import (
    arg_option,
    env_argument,
    file_name,
    json_option,
    open_environment,
    split_option,
)
from ludus.cli.output import faint, heading, note, say, say_json
from ludus.cli.stopping import INTERRUPTED, Stopper
from ludus.display.watch import Watcher, watching
from ludus.errors import LudusError

if TYPE_CHECKING:
    from ludus.programs.evaluate import Evaluation
    from ludus.rollouts.scheduler import Scheduler


def _price(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """IN,OUT as two amounts of dollars. Raises click.BadParameter."""
    if value is None:
        return None
    try:
        prompt, completion = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected two numbers such as 0.25,2, got {value!r}") from None
    return prompt, completion


def _role_models(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """ROLE=MODEL as a table. Raises click.BadParameter."""
    pairs = [value.partition("=") for value in values]
    for role, _, model in pairs:
        if not (role and model):
            raise click.BadParameter(f"expected ROLE=MODEL, such as opponent=demonstrator, got {role!r}")
    return {role: model for role, _, model in pairs}


COUNT = click.IntRange(min=1)
MOST_READ = 200
"""Failed rollouts that are looked at for the commonest failure."""
MOST_SHOWN = 300
"""Characters of it."""


@click.command("eval")
@env_argument
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="M",
    help="A model folder, a run folder, openai:NAME or demonstrator; several make one table.",
)
@split_option("test")
@click.option(
    "-n",
    "--num-tasks",
    type=COUNT,
    metavar="N",
    default=100,
    show_default=True,
    help="Tasks, from the split's first on.",
)
@click.option("-k", "--samples", type=COUNT, metavar="N", default=1, show_default=True, help="Rollouts a task.")
@click.option("--concurrency", type=COUNT, metavar="N", default=64, show_default=True, help="Rollouts at once.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Of everything that is drawn."
)
@click.option("--max-tokens", type=COUNT, metavar="N", show_default="the environment's", help="Tokens a reply.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    metavar="X",
    show_default="the environment's, or 1",
    help="0 is greedy.",
)
@arg_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    show_default="a new runs/eval-ENV-MODEL-N",
    help="The run folder; gone on with if it is there.",
)
@click.option(
    "--role-model",
    "role_models",
    multiple=True,
    callback=_role_models,
    metavar="ROLE=M",
    show_default="the model itself",
    help="Who plays another role, such as opponent=demonstrator; may be repeated.",
)
@click.option("--base-url", metavar="URL", help="Of the API behind openai:NAME, whose key is $OPENAI_API_KEY.")
@click.option("--price", callback=_price, metavar="IN,OUT", help="Dollars per million prompt and completion tokens.")
@click.option(
    "--max-cost", type=click.FloatRange(min=0), metavar="DOLLARS", help="End there, per model; needs --price."
)
@click.option(
    "--max-tokens-total", type=COUNT, metavar="N", help="End after so many tokens, prompts included, per model."
)
@click.option(
    "--timeout-s",
    metavar="X",
    type=click.FloatRange(min=0, min_open=True),
    default=600,
    show_default=True,
    help="Seconds a rollout may take.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that run the environment; 0 runs it in this one.",
)
@json_option
def evaluate(
    env: str, models: tuple[str, ...], args: tuple[str, ...], out: Path | None,
    max_cost: float | None, max_tokens_total: int | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Evaluate models in an environment.

    ENV is a registered name (ludus env list), path/to/file.py[:Class], module:Class or rg:FAMILY.

    \b
        ludus eval guess --model demonstrator --model runs/guess
        ludus eval nim --model runs/nim --role-model opponent=demonstrator
        ludus eval rg:spell_backward --model openai:NAME --price 0.25,2 --max-cost 1
    """
    if max_cost is not None and settings["price"] is None:
        raise click.UsageError("--max-cost needs --price, or no cost is known")
    from ludus.authoring.tasks import take
    from ludus.programs.evaluate import Budget, evaluate_async

    environment = open_environment(env, args)
    take(environment, settings["split"], 1)  # refuses a split that does not exist, before any model is loaded
    _check_models(models, settings["base_url"])
    settings["budget"] = Budget(max_cost, max_tokens_total)
    _check_models(tuple(settings["role_models"].values()), None)
    stopper = Stopper("finishing the rollouts that run")
    results: list[Evaluation] = []
    for model in models:
        folder = _folder(env, model, out, several=len(models) > 1)
        with watching(f"{env} · {model} → {folder}", {}) as watcher:

            def on_start(scheduler: Scheduler, watcher: Watcher = watcher) -> None:
                watcher.begin()
                stopper.stops(partial(setattr, scheduler, "stopping", True))

            program = partial(
                evaluate_async, environment, model, out=folder, progress=watcher.see, on_start=on_start, **settings
            )
            results.append(stopper.run(program))
        if stopper.asked:
            break
    _print(results, as_json=as_json, several=len(models) > 1)
    if stopper.asked:
        sys.exit(INTERRUPTED)
    for result in results:
        if not result.num_tasks:
            excluded = "every one was excluded (ludus show RUN --failed says why)"
            raise LudusError(f"no rollout could be scored: {excluded if result.num_excluded else result.stopped}")


def _check_models(models: tuple[str, ...], base_url: str | None) -> None:
    """What can be known to be wrong before the first one runs. Raises UsageError, ModelFolderError."""
    from ludus.programs.models import DEMONSTRATOR, OPENAI, model_folder, open_model

    for model in models:
        if model.startswith(OPENAI):
            open_model(model, base_url=base_url)
        elif base_url is not None:
            raise click.UsageError(f"--base-url goes with openai:NAME, but a model is {model!r}: openai:{model} ?")
        elif model != DEMONSTRATOR:
            model_folder(model)


def _folder(env: str, model: str, out: Path | None, *, several: bool) -> Path:
    if out is not None:
        return out / file_name(model) if several else out
    stem = f"eval-{file_name(env)}-{file_name(model)}"
    paths = (Path("runs") / f"{stem}-{number}" for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def _commonest_failure(result: Evaluation) -> str:
    """Why rollouts were excluded, in one line."""
    from ludus.programs.report.words import clean
    from ludus.store import RolloutIndex

    with RolloutIndex(Path(result.out)) as index:
        excluded = [row for row in index.query(last_attempts=True) if row.excluded][:MOST_READ]
        failures = [failure for row in excluded if (failure := index.get(row.id).failure)]
    (error, _), *_ = Counter(failure.error for failure in failures).most_common(1)
    text = " ".join(clean(error).split())
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _print(results: list[Evaluation], *, as_json: bool, several: bool) -> None:
    if as_json:
        values = [result.to_dict() for result in results]
        say_json({"results": values} if several else values[0])
        return
    from ludus.cli.results import results_table

    first = results[0]
    what = f"{first.num_tasks} tasks of {first.split}" + (f" × {first.samples} samples" if first.samples > 1 else "")
    say(f"\n{heading(first.env)}  {faint(what)}\n")
    for line in results_table(results):
        say("  " + line)
    say()
    for result in results:
        if result.stopped:
            say(f"  {result.model} ended early: {result.stopped}")
        if result.num_excluded:
            say(f"  {result.model} has excluded rollouts, most of them for: {_commonest_failure(result)}")
            say(faint(f"  ludus show {result.out} --failed"))
    for result in results:
        say(faint(f"  ludus show {result.out}"))
    if len(results) > 1:
        say(faint(f"  ludus compare {results[0].out} {results[1].out}"))
    if any(result.stopped for result in results):
        note("the same command with --out, and a higher limit where one was reached, goes on where it stopped")
