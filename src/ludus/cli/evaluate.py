"""`ludus eval`: any model in any environment, as one row of numbers that can be trusted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.access import role_prices_of
from ludus.cli.options import (
    arg_option,
    count_option,
    file_name,
    json_option,
    new_folder,
    num_tasks_option,
    open_members,
    out_option,
    running_options,
    samples_option,
    split_option,
)
from ludus.cli.output import faint, heading, note, say, say_json
from ludus.cli.stopping import INTERRUPTED, Stopper
from ludus.display.watch import watching
from ludus.errors import LudusError
from ludus.types import MAIN_ROLE

if TYPE_CHECKING:
    from ludus.cli.access import Accesses
    from ludus.programs.evaluate import Evaluation
    from ludus.programs.frontier import Frontier
    from ludus.programs.members import Member
    from ludus.programs.models import Access
    from ludus.rollouts.scheduler import Scheduler


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
@num_tasks_option(100)
@samples_option(1)
@arg_option
@out_option("a new runs/eval-ENV-MODEL-N")
@running_options
@click.option(
    "--role-price", "role_prices", multiple=True, callback=role_prices_of, metavar="ROLE=IN,OUT",
    help="Dollars per million tokens of a role's model, such as judge=0.25,2; may be repeated.",
)  # fmt: skip
@click.option(
    "--max-cost", type=click.FloatRange(min=0), metavar="DOLLARS", help="End there, per model; needs a price."
)
@count_option("--max-tokens-total", help_="End after so many tokens, prompts included, per model.")
@click.option(
    "--workers", metavar="N", type=click.IntRange(min=0), default=0, show_default=True,
    help="Processes that run the environment; 0 runs it in this one.",
)  # fmt: skip
@json_option
def evaluate(
    envs: tuple[str, ...], models: tuple[str, ...], args: tuple[str, ...], out: Path | None, access: Accesses,
    role_models: dict[str, str], role_prices: dict[str, tuple[float, float]], max_cost: float | None,
    max_tokens_total: int | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Evaluate models in an environment, or in several.

    ENV is a registered name (ludus env list), path/to/file.py[:Class], module:Class, rg:FAMILY, or a recipe, which
    stands for its environments with their options. Several make one table, with what they come to together: each
    counts the same, or as its weight in the recipe says. Several models also make one page, models.html: accuracy
    against cost and time.

    \b
        ludus eval guess --model demonstrator --model runs/guess
        ludus eval nim --model runs/nim --role-model opponent=demonstrator
        ludus eval rg:spell_backward --model openai:NAME --price 0.25,2 --max-cost 1
        ludus eval guess -m openai:SMALL -m openai:LARGE --price openai:SMALL=0.1,0.4 --price openai:LARGE=2,8
    """
    if out is not None:
        models = tuple(dict.fromkeys(models))  # one that is named twice would go on in the folder of the first
    access.check(models, role_models.values(), hourly=len(models) > 1)
    role_access = access.of_roles(role_models, role_prices)
    by_token = [price.by_token for price in access.prices.values()] + list(role_prices.values())
    if max_cost is not None and not any(by_token):
        raise click.UsageError("--max-cost needs --price or --role-price, IN,OUT, or no cost is known")
    from ludus.authoring.tasks import take
    from ludus.programs.evaluate import Budget, check_expert
    from ludus.programs.together import together

    members = open_members(envs, args)
    for member in members:
        take(member.env, settings["split"], 1)  # refuses a split that does not exist, before any model is loaded
    for model in models:
        _check_model(model, access.of(model))
        for member in members:
            check_expert(member.env, model)
    for role, model in role_models.items():
        _check_model(model, role_access[role], role)
    settings |= {"budget": Budget(max_cost, max_tokens_total), "role_models": role_models, "role_access": role_access}
    stopper = Stopper("finishing the rollouts that run")
    rows: list[Evaluation] = []
    for model in models:
        found: dict[str, Evaluation] = {}
        for member in members:
            folder = _folder(member, model, out, len(members) > 1, len(models) > 1)
            reached = {**settings, **vars(access.of(model))}
            found[member.name] = _evaluate(member, model, folder, stopper, reached)
            if stopper.asked:
                break
        rows += found.values()
        if 1 < len(found) == len(members):
            rows.append(together(found, [member.weight for member in members]))
        if stopper.asked:
            break
    results = [row for row in rows if row.out]
    compare = partial(_side_by_side, results, out, access) if len(models) > 1 else lambda: None
    _print(rows, results, compare, as_json=as_json, several=len(members) * len(models) > 1)
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


def _check_model(model: str, access: Access, role: str = MAIN_ROLE) -> None:
    """What can be known to be wrong before the first one runs. Raises UsageError, ModelFolderError."""
    from ludus.programs.models import check_model, is_remote, open_model

    if is_remote(model):
        open_model(model, **vars(access)).close()
    else:
        check_model(model, role)


def _folder(member: Member, model: str, out: Path | None, several_envs: bool, several_models: bool) -> Path:
    if out is not None:
        env = [file_name(member.name)] if several_envs else []
        return out.joinpath(*env, *([file_name(model)] if several_models else []))
    return new_folder(f"eval-{file_name(member.name or member.config.env)}-{file_name(model)}")


def _side_by_side(results: list[Evaluation], out: Path | None, access: Accesses) -> Frontier | None:
    """The page of models beside each other; None where nothing was scored."""
    from ludus.programs.frontier import frontier

    if not any(result.num_tasks for result in results):
        return None
    runs = list(dict.fromkeys(Path(result.out) for result in results if result.num_tasks + result.num_excluded))
    folder = out or new_folder("models-" + file_name("-".join(dict.fromkeys(result.env for result in results))))
    return frontier(runs, folder, access.prices)


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


def _print(
    rows: list[Evaluation], results: list[Evaluation], compare: Callable[[], Frontier | None], *, as_json: bool,
    several: bool,
) -> None:  # fmt: skip
    """Rows are the results, and of several environments what they come to together; `compare` writes the models' page."""
    if as_json:
        values = [row.to_dict() for row in rows]
        page = compare()
        models = {"models": page.to_dict()} if page else {}
        say_json({"results": values, **models} if several else values[0])
        return
    from ludus.cli.results import frontier_lines, results_table

    first = results[0]
    what = f"{first.num_tasks} tasks of {first.split}" + (f" × {first.samples} samples" if first.samples > 1 else "")
    names = dict.fromkeys(result.env for result in results)
    say(f"\n{heading(' + '.join(names))}  {faint(what + (' each' if len(names) > 1 else ''))}\n")
    for line in results_table(rows):
        say("  " + line)
    say()
    if page := compare():
        for line in frontier_lines(page):
            say(line)
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
