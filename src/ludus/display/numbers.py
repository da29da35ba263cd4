"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def clock(seconds: float) -> str:
    """A time that runs.

    >>> clock(59.9), clock(61), clock(3_725)
    ('0:59', '1:01', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """A time that has passed.

    >>> duration(59.6), duration(61), duration(3_725)
    ('1 min 00 s', '1 min 01 s', '1 h 02 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
