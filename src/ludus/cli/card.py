"""`ludus card`: what an evaluation says of a model's skill, calibration and use of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.options import json_option
from ludus.cli.output import align, faint, heading, say, say_json

if TYPE_CHECKING:
    from ludus.programs.card import Card


@click.command("card")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--reworded",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="An evaluation of the same tasks in other words (reword:ENV), to compare with.",
)
@click.option(
    "--reseeded",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="An evaluation of other tasks of the same kind (--arg seed=1), to compare with.",
)
@json_option
def card(run: Path, reworded: Path | None, reseeded: Path | None, as_json: bool) -> None:
    """Write RUN/card.html: the card of a model, from an evaluation.

    Skill by difficulty, calibration, tokens, overthinking, second thoughts, coverage and reliability, with intervals.

    \b
        ludus eval reason-suite --model M -n 400 -k 4 --out runs/suite
        ludus card runs/suite
    """
    from ludus.programs.card import card as write_card

    made = write_card(run, reworded=reworded, reseeded=reseeded)
    if as_json:
        say_json(made.to_dict())
        return
    for line in lines(made):
        say(line)


def lines(made: Card) -> list[str]:
    """The card's figures as text."""
    table = [[heading(name) for name in ("", "value", "95 % interval", "tasks")]]
    table += [[row.name, row.shown, row.range, str(row.num_tasks)] for row in made.figures]
    told = [
        f"\n{heading(made.model)}  {faint(made.env)}\n",
        *("  " + line for line in align(table, right=[1, 2, 3])),
        "",
    ]
    if skill := made.curves.get("skill"):
        levels = "  ".join(f"{point.x:g}: {point.mean:.2f}" for point in skill)
        told += [f"  accuracy by difficulty  {levels}", ""]
    for check in made.checks:
        low, high = check.interval
        told += [f"  {check.name}  {check.difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}: {check.verdict}"]
    return [*told, str(made.path)]
