"""Rows of cells as aligned lines, or as an HTML table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def align(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Rows of cells as lines with aligned columns.

    Args:
        rows: equally long; cells may be styled.
        right: columns that are aligned to the right.

    >>> align([("a", "10"), ("bcd", "5")], right=[1])
    ['a    10', 'bcd   5']
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    to_right = set(right)

    def pad(cell: str, column: int) -> str:
        space = " " * (widths[column] - _width(cell))
        return space + cell if column in to_right else cell + space

    return ["  ".join(pad(cell, column) for column, cell in enumerate(row)).rstrip() for row in rows]


def as_html(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row and first column are headings.

    >>> as_html([("", "reward"), ("end", "0.5")])
    '<table><tr><th></th><th>reward</th></tr><tr><th>end</th><td>0.5</td></tr></table>'
    """
    lines = []
    for number, row in enumerate(rows):
        cells = [("th" if not number or not column else "td", escape(cell)) for column, cell in enumerate(row)]
        lines.append("<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for tag, cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _width(cell: str) -> int:
    return len(STYLE.sub("", cell))
