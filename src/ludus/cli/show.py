"""`ludus show`: the rollouts of a run, and one of them turn by turn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.options import count_option, purpose_option
from ludus.cli.output import align, decimals, faint, heading, say
from ludus.display.sandboxes import tiers_text

if TYPE_CHECKING:
    from ludus.store import PurposeSummary, RolloutIndex


@click.command("show")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("rollout", required=False, metavar="[ROLLOUT]")
@purpose_option
@click.option("--task", metavar="T", help="Only those of the task with this id.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@count_option("--limit", default=20, help_="At most so many.")
def show(run: Path, rollout: str | None, purpose: str | None, task: str | None, failed: bool, limit: int) -> None:
    """List the rollouts of RUN, or print one of them turn by turn."""
    from ludus.store import RolloutIndex, RunFolder

    with RunFolder.open(run), RolloutIndex(run) as index:
        if rollout is None:
            _list(index, run, purpose, task, failed, limit)
            return
        from ludus.cli.transcript import rollout_lines

        for line in rollout_lines(index.get(rollout)):
            say(line)


def _list(index: RolloutIndex, run: Path, purpose: str | None, task: str | None, failed: bool, limit: int) -> None:
    from ludus.cli.transcript import listing
    from ludus.errors import UnknownName
    from ludus.programs.report.words import clean

    purposes = index.purposes()
    names = [summary.purpose for summary in purposes]
    if purpose is not None and purpose not in names:
        raise UnknownName("purpose", purpose, names)
    if not (purpose or task or failed):
        for line in _overview(purposes):
            say(line)
        if tiers := {tier for summary in purposes for tier in summary.sandboxes}:
            say(faint(f"sandboxes: {clean(tiers_text(sorted(tiers)))}"))
        say()
    rows = index.query(purpose=purpose, task=task, limit=None if failed else limit + 1)
    rows = [row for row in rows if row.boundary or not failed]
    if not rows:
        say("no rollout matches")
        return
    for line in listing(rows[:limit]):
        say(line)
    if len(rows) > limit:
        say(faint(f"... and more: --limit {limit * 5}, --purpose {rows[-1].purpose}, --task, --failed"))
    command = click.get_current_context().find_root().command_path
    say(faint(f"\n  {command} show {run} {rows[0].id}"))


def _overview(purposes: list[PurposeSummary]) -> list[str]:
    """What the run holds, a row a purpose."""
    table = [[heading(name) for name in ("made for", "rollouts", "tasks", "reward", "cut off", "failed", "excluded")]]
    for s in purposes:
        counts = (s.num_truncated, s.num_policy_failures, s.num_excluded)
        table.append(
            [
                s.purpose,
                str(s.num_rollouts),
                str(s.num_tasks),
                decimals(s.mean_reward),
                *(str(n or "–") for n in counts),
            ]
        )
    return align(table, right=range(1, 7))
