"""Accuracy against cost and time, drawn with Matplotlib: for the page, as a picture and as a drawing of its own.

Filled points with a line through them are the front: no other model is at least as good there for less. Bars are 95 %
intervals. Costs and times that differ by more than a factor stand on a logarithmic axis.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ludus.programs.frontier.compared import AXES, Axis, Section
from ludus.programs.report.charts import COLORS, INK, LINE, as_svg, drawing
from ludus.programs.report.words import clean
from ludus.programs.statistics import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 12.0
"""Factor between the least and the largest value from which an axis is logarithmic."""
MOST_TICKS = 4
"""Powers of ten under an axis."""
SIZE = (3.6, 2.8)
"""Inches of one chart."""
LIGHT = {INK: "#62676e", LINE: "#e3e3df", COLORS[0]: "#2f5fb3"}
"""Colours of the picture, which can't follow a page's."""
MOST_NAME = 34
"""Characters of a model's name beside its point."""
ABOVE = ((-6, 5, "right"), (6, 5, "left"), (0, 10, "center"))
BELOW = ((6, -11, "left"), (-6, -11, "right"), (0, -17, "center"))
FAR = ((6, 15, "left"), (-6, 15, "right"), (6, -20, "left"), (-6, -20, "right"))
"""Where a name may stand, in points from its own: above the front there is nothing else."""


def axes_of(section: Section) -> list[Axis]:
    """What accuracy can be shown against: what is known of at least one model."""
    return [axis for axis in AXES if any(math.isfinite(axis.of(model).value) for model in section.models)]


def draw_axis(section: Section, axis: Axis) -> str:
    """One chart as an SVG element for the page. Raises MissingExtra."""
    with drawing(f"{section.title} {axis.name}", SIZE) as figure:
        _plot(figure.add_subplot(), section, axis, {name: name for name in LIGHT})
        return as_svg(figure)


def draw_png(section: Section) -> bytes:
    """All charts of a section side by side. Raises MissingExtra."""
    axes = axes_of(section)
    with drawing(section.title, (SIZE[0] * len(axes), SIZE[1] + 0.3), LIGHT[INK], LIGHT[LINE]) as figure:
        figure.suptitle(clean(section.title), fontsize=9)
        for place, axis in enumerate(axes, 1):
            _plot(figure.add_subplot(1, len(axes), place), section, axis, LIGHT)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        return data.getvalue()


def draw_svg(section: Section, style: str) -> str:
    """The same as a drawing that stands alone and follows light and dark mode.

    Args:
        style: CSS that sets the page's variables.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    axes = axes_of(section)
    with drawing(section.title, (SIZE[0] * len(axes), SIZE[1] + 0.3)) as figure:
        figure.suptitle(clean(section.title), fontsize=9)
        for place, axis in enumerate(axes, 1):
            _plot(figure.add_subplot(1, len(axes), place), section, axis, {name: name for name in LIGHT})
        svg = as_svg(figure)
    head, rest = svg.split(">", 1)
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'{head} {space} style="background: var(--paper)"><style>{style}</style>{rest}\n'


def _plot(axes: Axes, section: Section, axis: Axis, colors: dict[str, str]) -> None:
    points = [(m.model, axis.of(m), section.score(m)) for m in section.models]
    points = [point for point in points if math.isfinite(point[1].value) and math.isfinite(point[2].value)]
    front = section.front(axis)
    scale(axes, [x.value for _, x, _ in points])
    best = sorted((x.value, y.value) for name, x, y in points if name in front)
    if len(best) > 1:
        x, y = zip(*best, strict=True)
        axes.plot(x, y, color=colors[COLORS[0]], linewidth=1.0, alpha=0.6, zorder=1, drawstyle="steps-post")
    for name, cost, score in points:
        color = colors[COLORS[0] if name in front else INK]
        axes.errorbar(
            cost.value, score.value, _bars(score), _bars(cost), color=color, ecolor=color, elinewidth=0.8, capsize=2,
            marker="o", markersize=5.5, markerfacecolor=color if name in front else "none",
            alpha=1 if name in front else 0.75,
        )  # fmt: skip
    axes.set_xlabel(axis.label)
    axes.set_ylabel("mean reward" if section.by_reward else "accuracy")
    if not section.by_reward:
        axes.set_ylim(-0.05, 1.08)
    _write_names(axes, [(name, x.value, y.value) for name, x, y in points], front, colors[INK])


def scale(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis where values differ much; with a place for 0 where there is one."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    above = [value for value in values if value > 0]
    axes.margins(x=0.16, y=0.12)
    if above and max(above) > WIDE * min(above):
        least, most = min(above), max(above)
        decades = math.log10(most / least)
        if len(above) < len(values):
            axes.set_xscale("symlog", linthresh=least)
            axes.set_xlim(-0.3 * least, most * 10 ** (0.2 * decades))
            powers = range(math.floor(math.log10(least)) + 1, math.ceil(math.log10(most)) + 1)
            axes.xaxis.set_major_locator(
                FixedLocator([0, *(10.0**p for p in powers[:: 1 + len(powers) // MOST_TICKS])])
            )
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
            axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: plain(value)))


def plain(value: float) -> str:
    """A number under an axis, without an exponent; nothing below 0, where there is nothing to see.

    >>> plain(1e-05), plain(0.5), plain(200), plain(-1)
    ('0.00001', '0.5', '200', '')
    """
    text = f"{value:.10f}".rstrip("0").rstrip(".")
    return text if value >= 0 else ""


def _bars(figure: Figure) -> list[list[float]] | None:
    """Lengths of the error bar below and above."""
    low, high = figure.interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return [[max(0.0, figure.value - low)], [max(0.0, high - figure.value)]]


def _write_names(axes: Axes, points: Sequence[tuple[str, float, float]], front: set[str], color: str) -> None:
    """Each name beside its point, where it hides least and is taken for no other's."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr] # places are known after the layout
    dots = [axes.transData.transform((x, y)) for _, x, y in points]
    taken: list[Any] = []
    for (name, x, y), dot in zip(points, dots, strict=True):
        text = clean(name) if len(name) <= MOST_NAME else f"{clean(name)[: MOST_NAME - 1]}…"
        tried = []
        for dx, dy, side in (*ABOVE, *BELOW, *FAR) if name in front else (*BELOW, *ABOVE, *FAR):
            note = axes.annotate(text, (x, y), (dx, dy), textcoords="offset points", ha=side, fontsize=7.5, color=color)
            note.set_in_layout(False)
            box = note.get_window_extent()
            outside = box.x0 < axes.bbox.x0 or box.x1 > axes.bbox.x1 or box.y0 < axes.bbox.y0 or box.y1 > axes.bbox.y1
            nearest = min(dots, key=lambda other, box=box: _distance(box, other))  # type: ignore[misc] # a default
            worse = 3 * sum(map(box.overlaps, taken)) + 2 * outside + 3 * (nearest is not dot)
            tried.append((worse, note, box))
        best = min(tried, key=lambda one: one[0])
        for one in tried:
            if one is not best:
                one[1].remove()
        taken.append(best[2])


def _distance(box: Any, point: Any) -> float:
    """Of a point from the nearest of a box, in pixels."""
    x, y = point
    return math.hypot(max(box.x0 - x, 0.0, x - box.x1), max(box.y0 - y, 0.0, y - box.y1))
