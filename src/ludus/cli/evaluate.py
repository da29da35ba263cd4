"""`ludus eval`: any model in any environment, as one row of numbers that can be trusted."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.options import (
    arg_option,
    file_name,
    json_option,
    open_members,
    role_models_of,
    split_option,
)
from ludus.cli.output import faint, heading, note, say, say_json
from ludus.cli.stopping import INTERRUPTED, Stopper
from ludus.display.watch import watching
from ludus.errors import LudusError

if TYPE_CHECKING:
    from ludus.programs.evaluate import Evaluation
    from ludus.programs.members import Member
    from ludus.rollouts.scheduler import Scheduler


def price_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """IN,OUT as two amounts of dollars. Raises click.BadParameter."""
    return None if value is None else _amounts(value)


def _role_prices(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """ROLE=IN,OUT as a table. Raises click.BadParameter."""
    return {role: _amounts(price) for role, _, price in (value.partition("=") for value in values)}


def _amounts(value: str) -> tuple[float, float]:
    try:
        prompt, completion = (float(part) for part in value.split(","))
    except ValueError:
        prompt = completion = math.nan
    if not (0 <= prompt < math.inf and 0 <= completion < math.inf):
        raise click.BadParameter(f"expected two amounts such as 0.25,2, got {value!r}")
    return prompt, completion


price_option = click.option(
    "--price", callback=price_of, metavar="IN,OUT", help="Dollars per million prompt and completion tokens."
)
role_price_option = click.option(
    "--role-price",
    "role_prices",
    multiple=True,
    callback=_role_prices,
    metavar="ROLE=IN,OUT",
    help="Dollars per million tokens of a role's model, such as judge=0.25,2; may be repeated.",
)
COUNT = click.IntRange(min=1)
MOST_READ = 200
"""Failed rollouts that are looked at for the commonest failure."""
MOST_SHOWN = 300
"""Characters of it."""


@click.command("eval")
@click.argument("envs", metavar="ENV...", nargs=-1, required=True)
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
    callback=role_models_of,
    metavar="ROLE=M",
    show_default="the model itself",
    help="Who plays another role, such as opponent=demonstrator; may be repeated.",
)
@role_price_option
@click.option("--base-url", metavar="URL", help="Of the API behind openai:NAME, whose key is $OPENAI_API_KEY.")
@price_option
@click.option(
    "--max-cost", type=click.FloatRange(min=0), metavar="DOLLARS", help="End there, per model; needs a price."
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
    envs: tuple[str, ...], models: tuple[str, ...], args: tuple[str, ...], out: Path | None,
    max_cost: float | None, max_tokens_total: int | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Evaluate models in an environment, or in several.

    ENV is a registered name (ludus env list), path/to/file.py[:Class], module:Class, rg:FAMILY, or a recipe, which
    stands for its environments with their options. Several make one table, with what they come to together: each
    counts the same, or as its weight in the recipe says.

    \b
        ludus eval guess --model demonstrator --model runs/guess
        ludus eval nim --model runs/nim --role-model opponent=demonstrator
        ludus eval rg:spell_backward --model openai:NAME --price 0.25,2 --max-cost 1
    """
    if max_cost is not None and settings["price"] is None and not settings["role_prices"]:
        raise click.UsageError("--max-cost needs --price or --role-price, or no cost is known")
    from ludus.authoring.tasks import take
    from ludus.programs.evaluate import Budget
    from ludus.programs.together import together

    members = open_members(envs, args)
    for member in members:
        take(member.env, settings["split"], 1)  # refuses a split that does not exist, before any model is loaded
    _check_models(models, settings["base_url"])
    settings["budget"] = Budget(max_cost, max_tokens_total)
    _check_models(tuple(settings["role_models"].values()), None)
    stopper = Stopper("finishing the rollouts that run")
    rows: list[Evaluation] = []
    for model in models:
        found: dict[str, Evaluation] = {}
        for member in members:
            folder = _folder(member, model, out, len(members) > 1, len(models) > 1)
            found[member.name] = _evaluate(member, model, folder, stopper, settings)
            if stopper.asked:
                break
        rows += found.values()
        if 1 < len(found) == len(members):
            rows.append(together(found, [member.weight for member in members]))
        if stopper.asked:
            break
    results = [row for row in rows if row.out]
    _print(rows, results, as_json=as_json, several=len(members) * len(models) > 1)
    if stopper.asked:
        sys.exit(INTERRUPTED)
    for result in results:
        if not result.num_tasks:
            excluded = "every one was excluded (ludus show RUN --failed says why)"
            raise LudusError(f"no rollout could be scored: {excluded if result.num_excluded else result.stopped}")


def _evaluate(member: Member, model: str, folder: Path, stopper: Stopper, settings: Mapping[str, Any]) -> Evaluation:
    """One model in one environment. The environment is called as it is in the command."""
    from ludus.programs.evaluate import evaluate_async

    own = {
        "max_tokens": settings["max_tokens"] or member.config.max_tokens,
        "timeout_s": member.config.timeout_s or settings["timeout_s"],
    }
    with watching(f"{member.config.env} · {model} → {folder}", {}) as watcher:

        def on_start(scheduler: Scheduler) -> None:
            watcher.begin()
            stopper.stops(partial(setattr, scheduler, "stopping", True))

        result = stopper.run(
            partial(
                evaluate_async, member.env, model, out=folder, progress=watcher.see, on_start=on_start,
                **{**settings, **own},
            )
        )  # fmt: skip
    result.env = member.name or result.env
    return result


def _check_models(models: tuple[str, ...], base_url: str | None) -> None:
    """What can be known to be wrong before the first one runs. Raises UsageError, ModelFolderError."""
    from ludus.programs.models import DEMONSTRATOR, is_remote, model_folder, open_model

    for model in models:
        if is_remote(model):
            open_model(model, base_url=base_url).close()
        elif base_url is not None:
            raise click.UsageError(f"--base-url goes with openai:NAME, but a model is {model!r}: openai:{model} ?")
        elif model != DEMONSTRATOR:
            model_folder(model)


def _folder(member: Member, model: str, out: Path | None, several_envs: bool, several_models: bool) -> Path:
    if out is not None:
        env = [file_name(member.name)] if several_envs else []
        return out.joinpath(*env, *([file_name(model)] if several_models else []))
    stem = f"eval-{file_name(member.name or member.config.env)}-{file_name(model)}"
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


def _print(rows: list[Evaluation], results: list[Evaluation], *, as_json: bool, several: bool) -> None:
    """Rows are the results, and of several environments what they come to together."""
    if as_json:
        values = [row.to_dict() for row in rows]
        say_json({"results": values} if several else values[0])
        return
    from ludus.cli.results import results_table

    first = results[0]
    what = f"{first.num_tasks} tasks of {first.split}" + (f" × {first.samples} samples" if first.samples > 1 else "")
    names = dict.fromkeys(result.env for result in results)
    say(f"\n{heading(' + '.join(names))}  {faint(what + (' each' if len(names) > 1 else ''))}\n")
    for line in results_table(rows):
        say("  " + line)
    say()
    for result in results:
        name = f"{result.env}, {result.model}" if len(names) > 1 else result.model
        if result.stopped:
            say(f"  {name} ended early: {result.stopped}")
        if result.num_excluded:
            say(f"  {name} has excluded rollouts, most of them for: {_commonest_failure(result)}")
            say(faint(f"  ludus show {result.out} --failed"))
    for result in results:
        say(faint(f"  ludus show {result.out}"))
    if len(results) > 1 and len(names) == 1:
        say(faint(f"  ludus compare {results[0].out} {results[1].out}"))
    if any(result.stopped for result in results):
        note("the same command with --out, and a higher limit where one was reached, goes on where it stopped")
