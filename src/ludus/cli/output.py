"""What commands print: results on stdout, everything said on the way on stderr, tables that fit a terminal."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click


def say(text: str = "") -> None:
    """A line of the result. Styles are dropped where stdout is no terminal."""
    click.echo(text)


def note(text: str) -> None:
    """A line on the way to the result; shown above a live display where there is one."""
    print(text if sys.stderr.isatty() else click.unstyle(text), file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """One JSON object on one line; NaN becomes null."""
    import msgspec

    click.echo(msgspec.json.encode(value).decode())


def heading(text: str) -> str:
    """Bold on a terminal."""
    return click.style(text, bold=True)


def faint(text: str) -> str:
    """Dim on a terminal."""
    return click.style(text, dim=True) if text else ""


def terminal_width() -> int:
    """Columns of the terminal; a log has as many as it takes."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 10_000


def align(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Rows of cells as lines with aligned columns.

    Args:
        rows: equally long; cells may be styled.
        right: columns that are aligned to the right.

    >>> align([("a", "10"), ("bcd", "5")], right=[1])
    ['a    10', 'bcd   5']
    """
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(*rows, strict=True)]
    to_right = set(right)

    def pad(cell: str, column: int) -> str:
        space = " " * (widths[column] - len(click.unstyle(cell)))
        return space + cell if column in to_right else cell + space

    return ["  ".join(pad(cell, column) for column, cell in enumerate(row)).rstrip() for row in rows]


def plus_minus(mean: float | None, se: float | None) -> str:
    """A mean with its standard error.

    >>> plus_minus(0.5, 0.0161), plus_minus(0.5, None), plus_minus(None, None)
    ('0.500 ± 0.016', '0.500', '–')
    """
    if mean is None or not math.isfinite(mean):
        return "–"
    return decimals(mean) + (f" ± {decimals(se)}" if se is not None and math.isfinite(se) else "")


def decimals(value: float | None, *, signed: bool = False) -> str:
    """A score: three decimals, or an en dash where there is none.

    >>> decimals(0.25), decimals(0.25, signed=True), decimals(float("nan"))
    ('0.250', '+0.250', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if signed else ''}.3f}"


def interval(low_high: Sequence[float | None], *, signed: bool = False) -> str:
    """Two ends in brackets.

    >>> interval((0.1, 0.2))
    '[0.100, 0.200]'
    """
    return f"[{', '.join(decimals(end, signed=signed) for end in low_high)}]"


def short(number: float) -> str:
    """A count for people.

    >>> short(950), short(12_345), short(3_400_000)
    ('950', '12.3k', '3.4M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
