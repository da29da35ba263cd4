"""Rewards then and now as text: a row a scorer, and what became of the environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ludus.cli.output import align, decimals, faint, heading
from ludus.programs.report.words import clean

if TYPE_CHECKING:
    from ludus.programs.replay.result import EnvironmentCheck, ScorerRow

STATES = {True: "as it was", False: "not as it was", None: "not known to be as it was"}


def environment_lines(checks: Sequence[EnvironmentCheck]) -> Iterator[str]:
    """Each environment's content hash, then and now."""
    for check in checks:
        then = ", ".join(known or "none" for known in check.hashes)
        used = "" if check.used == check.recorded else f" in place of {clean(check.recorded)}"
        yield f"environment {clean(check.used)}{used} is {STATES[check.same]}: hash {check.hash or 'none'}, then {then}"


def score_table(rows: Sequence[ScorerRow]) -> list[str]:
    """A row a scorer, the last one the reward; columns about groups only where there are any."""
    if not rows:
        return []
    grouped = any(row.num_groups for row in rows)
    names = ["scorer", "as recorded", "different", "not compared", "mean then", "mean now", "correlation"]
    names += ["advantage turned", "groups reordered"] if grouped else []
    table = [[heading(name) for name in names]]
    for row in rows:
        cells = [clean(row.scorer), str(row.num_equal), str(row.num_differ), str(row.num_cannot)]
        cells += [decimals(value) for value in (row.mean_then, row.mean_now, row.correlation)]
        turned = f"{row.num_turned} of {row.num_in_groups}" if row.num_groups else "–"
        reordered = f"{row.num_reordered} of {row.num_groups}" if row.num_groups else "–"
        table.append(cells + ([turned, reordered] if grouped else []))
    why = [faint(f"  {clean(row.scorer)}: {clean(row.cannot)}") for row in rows[:-1] if row.cannot]
    return align(table, right=range(1, len(names))) + why
