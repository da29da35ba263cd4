"""Evaluations as a table: a row a model, or a column a model where rows would not fit the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ludus.cli.output import align, faint, heading, terminal_width
from ludus.programs.tables import evaluation_table

if TYPE_CHECKING:
    from ludus.programs.evaluate import Evaluation
    from ludus.programs.frontier import Frontier

TEXT_WIDTH = 110
"""Columns of text that is read, however wide the terminal is."""


def results_table(evaluations: Sequence[Evaluation]) -> list[str]:
    """Lines of text. Columns that say nothing (no cost, nothing excluded) are left out."""
    return _fitting(evaluation_table(evaluations))


def frontier_lines(found: Frontier) -> Iterator[str]:
    """Models side by side, by environment, and where the page is."""
    from ludus.programs.frontier.table import method, table
    from ludus.programs.report.words import clean

    for section in found.sections:
        yield f"{heading('accuracy, cost and time')}  {faint(clean(section.title))}\n"
        yield from ("  " + line for line in _fitting([list(map(clean, row)) for row in table(section)]))
        yield from (f"  {clean(note)}" for note in section.notes)
        yield ""
    for text in dict.fromkeys(method(section) for section in found.sections):
        yield from (faint(f"  {line}") for line in textwrap.wrap(text, min(terminal_width(), TEXT_WIDTH) - 2))
        yield ""
    yield f"  {found.page}"
    yield from (f"  {picture}" for picture in found.pictures)
    yield ""


def _fitting(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows under headings; turned where there is one row, or rows would not fit the terminal."""
    names, *cells = table
    rows = [[heading(name) for name in names], *map(list, cells)]
    lines = align(rows, right=range(1, len(names)))
    if len(cells) > 1 and max(map(len, lines[1:])) <= terminal_width():
        return lines
    return align([list(row) for row in zip(*rows, strict=True)])
