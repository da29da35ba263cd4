"""`ludus report`: a run as one HTML file; several evaluations as a page of models side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.access import price_option, prices_option
from ludus.cli.options import json_option, new_folder, out_option
from ludus.cli.output import align, decimals, heading, say, say_json

if TYPE_CHECKING:
    from ludus.programs.prices import Price
    from ludus.programs.report.rescoring import Change, Rescoring


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--rescore", is_flag=True, help="Also compare the recorded rewards with those by the scorers of today.")
@click.option("--env", metavar="ENV", help="With --rescore: another version of the environment, such as other.py.")
@price_option
@prices_option
@out_option("a new runs/models-N", "With several RUNs: where the page is written.")
@json_option
def report(
    runs: tuple[Path, ...], rescore: bool, env: str | None, prices: dict[str, Price], price_file: dict[str, Price],
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Write RUN/report.html anew, also while the run goes on.

    Of several evaluations, write one page of models side by side, models.html: accuracy against cost and time, with 95 %
    intervals, and which models none of the others beats. Times are as they were recorded; prices may be given now.

    \b
        ludus report runs/mine
        ludus report runs/eval-guess-small-1 runs/eval-guess-large-1 --price large=2,8 --price small=0.5/h
    """
    if len(runs) > 1:
        if rescore or env:
            raise click.UsageError("--rescore and --env are for one RUN")
        _side_by_side(runs, out or new_folder("models"), prices, price_file, as_json)
    elif out or prices or price_file or as_json:
        raise click.UsageError("--price, --prices, --out and --json are for several RUNs")
    else:
        _report(runs[0], rescore, env)


def _side_by_side(
    runs: Sequence[Path], out: Path, prices: dict[str, Price], listed: dict[str, Price], as_json: bool
) -> None:
    from ludus.cli.results import frontier_lines
    from ludus.programs.frontier import frontier

    found = frontier(runs, out, {**listed, **prices}, named=filter(None, prices))
    if as_json:
        say_json(found.to_dict())
        return
    say()
    for line in frontier_lines(found):
        say(line)


def _report(run: Path, rescore: bool, env: str | None) -> None:
    from ludus.programs.report import report as write_report

    if env is not None and not rescore:
        raise click.UsageError("--env is the environment of --rescore: give both", click.get_current_context())
    rescored = None
    if rescore:
        from ludus.programs.report.rescoring import rescoring

        rescored = rescoring(run, env)
        for line in rescoring_lines(rescored):
            say(line)
        say()
    say(str(write_report(run, rescored)))


def rescoring_lines(rescored: Rescoring) -> Iterator[str]:
    """Rewards then and now: a row a scorer, and the rollouts that changed most."""
    from ludus.cli.scores import environment_lines, score_table

    yield f"{rescored.num_rollouts:,} rollouts scored again, {rescored.num_changed:,} of them otherwise than then"
    yield from environment_lines(rescored.environments)
    yield ""
    yield from score_table(rescored.rows)
    if rescored.changes:
        yield ""
        yield from _largest(rescored.changes)


def _largest(changes: list[Change]) -> list[str]:
    from ludus.programs.report.words import clean

    table = [[heading(name) for name in ("rollout", "made for", "reward then", "now", "scorers")]]
    for change in changes:
        rollout = change.rollout
        scorers = ", ".join(f"{name} {then} → {now}" for name, then, now in change.scorers)
        table.append(
            [rollout.id, clean(rollout.purpose), decimals(rollout.reward), decimals(change.now), clean(scorers)]
        )
    return align(table, right=[2, 3])
