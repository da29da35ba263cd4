"""Evaluations as a table: a row a model, or a column a model where rows would not fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ludus.cli.output import align, heading, terminal_width
from ludus.programs.tables import evaluation_table

if TYPE_CHECKING:
    from ludus.programs.evaluate import Evaluation


def results_table(evaluations: Sequence[Evaluation]) -> list[str]:
    """Lines of text. Columns that say nothing (no cost, nothing excluded) are left out."""
    names, *cells = evaluation_table(evaluations)
    rows = [[heading(name) for name in names], *cells]
    lines = align(rows, right=range(1, len(names)))
    if len(evaluations) > 1 and max(map(len, lines[1:])) <= terminal_width():
        return lines
    return align([list(row) for row in zip(*rows, strict=True)])
