"""`ludus report`: a run as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.output import align, decimals, heading, say

if TYPE_CHECKING:
    from ludus.programs.report.rescoring import Change, Rescoring


@click.command("report")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--rescore", is_flag=True, help="Also compare the recorded rewards with those by the scorers of today.")
@click.option("--env", metavar="ENV", help="With --rescore: another version of the environment, such as other.py.")
def report(run: Path, rescore: bool, env: str | None) -> None:
    """Write RUN/report.html anew, also while the run goes on."""
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
