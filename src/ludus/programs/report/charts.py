"""Charts of a report: which curves the metrics allow, and their drawing as inline SVG.

Choosing (`charts_of`) is a pure function of the rows of metrics.jsonl; a key that is not there makes no chart. Drawing
needs Matplotlib. The SVG takes its colours from CSS variables of the page, so that it follows light and dark mode.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ludus.errors import MissingExtra
from ludus.programs.report.words import clean, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
"""One line of metrics.jsonl."""

MAX_POINTS = 400
SMOOTH_FROM = 20

_CURVES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("rl", "Reward in training", {"reward/mean": "reward", "success": "success"}),
    ("rl", "Turns", {"turns/mean": "turns"}),
    (
        "rl",
        "Completion length, tokens",
        {"length/mean": "rollout", "length/mean_right": "solved", "length/mean_wrong": "not solved"},
    ),
    ("rl", "Entropy, nats per token", {"entropy": "entropy"}),
    (
        "rl",
        "KL divergence, nats per token",
        {"kl_old": "from the sampler", "mismatch/kl": "before the update"},
    ),
    ("rl", "Gradient norm", {"grad_norm": "gradient norm"}),
    ("rl", "Excluded and truncated, share of rollouts", {"excluded": "excluded", "truncated": "truncated"}),
    ("rl", "Loss", {"loss": "loss"}),
    ("sft", "Fine-tuning loss", {"loss": "loss"}),
)
_TIMES = {"time/sampling": "sampling", "time/training": "training"}

# Colours that stand for CSS variables while Matplotlib draws.
_VARIABLES = {"#010101": "--ink-soft", "#010102": "--line"} | {f"#01020{i}": f"--c{i}" for i in range(1, 6)}
INK, LINE, *COLORS = _VARIABLES


@dataclass(frozen=True)
class Series:
    """One curve: label, steps and values, and half lengths of error bars where there are any."""

    label: str
    x: list[float]
    y: list[float]
    error: list[float] | list[tuple[float, float]] | None = None
    """Below and above the point, where they differ."""


@dataclass(frozen=True)
class Chart:
    """What one figure shows. Style: lines over steps, points with error bars, or shares that add up to 1."""

    title: str
    series: list[Series]
    style: Literal["lines", "points", "shares"] = "lines"
    ticks: list[str] = field(default_factory=list)
    """Names under the points, where there is no step to put there."""
    note: str = ""
    x_label: str = "step"
    whole: bool = True
    """Whether only whole numbers stand under the axis."""
    diagonal: bool = False
    """Whether a line shows where x and y are equal."""

    @property
    def newest(self) -> str:
        """The last value, as text; "" where several curves share the chart."""
        return f"{self.series[0].y[-1]:.4g}" if len(self.series) == 1 else ""


def charts_of(rows: Sequence[Row]) -> list[Chart]:
    """The charts that the rows allow, in reading order."""
    charts = [_evaluations([row for row in rows if row.get("phase") == "eval"])]
    for phase, title, keys in _CURVES:
        of_phase = [row for row in rows if row.get("phase", "rl") == phase]
        series = [_series(of_phase, key, label) for key, label in keys.items()]
        charts.append(Chart(title, [s for s in series if len(s.y) > 1]))
    charts.append(_shares([row for row in rows if row.get("phase", "rl") == "rl"]))
    charts[1:1] = _by_environment(rows)
    return [chart for chart in charts if chart.series]


def draw(chart: Chart) -> str:
    """The chart as an SVG element. Raises MissingExtra where Matplotlib is not installed."""
    with drawing(chart.title, (4.4, 2.3)) as figure:
        _plot(figure.add_subplot(), chart)
        if len(chart.series) > 1:
            figure.legend(loc="outside upper center", ncols=len(chart.series), handlelength=1.6)
        return as_svg(figure)


@contextmanager
def drawing(salt: str, size: tuple[float, float], ink: str = INK, line: str = LINE) -> Iterator[Figure]:
    """A figure in the style of the reports, to be drawn and saved within the context.

    Args:
        salt: makes its ids its own.
        size: inches.
        ink, line: colours; by default those that stand for the page's.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("charts in reports", "train") from None
    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 8, "text.color": ink,
        "axes.edgecolor": line, "axes.labelcolor": ink, "xtick.color": line, "ytick.color": line,
        "xtick.labelcolor": ink, "ytick.labelcolor": ink, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": line, "grid.linewidth": 0.5, "axes.axisbelow": True,
        "legend.frameon": False, "legend.fontsize": 7.5, "axes.linewidth": 0.6, "axes.formatter.useoffset": False,
        "text.parse_math": False,
    }  # fmt: skip
    with rc_context(style):
        yield Figure(figsize=size, layout="constrained")


def as_svg(figure: Figure) -> str:
    """The svg element alone, as wide as its place, with the page's colours."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(text.getvalue())


def _by_environment(rows: Sequence[Row]) -> list[Chart]:
    """Evaluations and rewards of each environment of a mixture, as many in a chart as there are colours."""
    names = list(dict.fromkeys(key.split("/")[1] for row in rows for key in row if key.startswith("env/")))
    parts = [names[i : i + len(COLORS)] for i in range(0, len(names), len(COLORS))]
    charts = []
    for phase, key, what in (("eval", "eval/mean", "Evaluation score"), ("rl", "reward/mean", "Reward in training")):
        of_phase = [row for row in rows if row.get("phase") == phase]
        for part in parts:
            series = [_series(of_phase, f"env/{name}/{key}", clean(name)) for name in part]
            charts.append(Chart(f"{what}, by environment", [s for s in series if len(s.y) > 1]))
    return charts


def _evaluations(rows: Sequence[Row]) -> Chart:
    found = [row for row in rows if _number(row.get("eval/mean")) is not None]
    steps = [float(row.get("step", 0)) for row in found]
    in_order = all(a < b for a, b in itertools.pairwise(steps))
    series = Series(
        "score",
        steps if in_order else [float(i) for i in range(len(found))],
        [float(row["eval/mean"]) for row in found],
        [_number(row.get("eval/se")) or 0.0 for row in found],
    )
    ticks = [] if in_order else [clean(name_of(str(row.get("eval/name", "")))) for row in found]
    return Chart("Evaluation score", [series] if found else [], "points", ticks, "bars: ± one standard error")


def _series(rows: Sequence[Row], key: str, label: str) -> Series:
    points = [(float(row["step"]), row[key]) for row in rows if "step" in row and _number(row.get(key)) is not None]
    return Series(label, [x for x, _ in points], [float(y) for _, y in points])


def _shares(rows: Sequence[Row]) -> Chart:
    keys = [key for key in _TIMES if any(key in row for row in rows)]
    seconds = [[_number(row.get(key)) or 0.0 for key in keys] for row in rows]
    whole = [(float(row["step"]), times) for row, times in zip(rows, seconds, strict=True) if sum(times) > 0]
    steps = [step for step, _ in whole]
    series = [Series(_TIMES[key], steps, [times[i] / sum(times) for _, times in whole]) for i, key in enumerate(keys)]
    return Chart("Where the time goes, share of a step", series if len(whole) > 1 else [], "shares")


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _plot(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    if chart.style == "shares":
        thin = [_thin(series) for series in chart.series]
        axes.stackplot(
            thin[0].x, *[s.y for s in thin], labels=[s.label for s in thin], colors=COLORS, alpha=0.75, linewidth=0
        )
        axes.set_ylim(0, 1)
    for series, color in zip(chart.series, COLORS, strict=False):
        if chart.style == "points":
            _points(axes, series, color)
        elif chart.style == "lines":
            _line(axes, _thin(series), color, "-" if series is chart.series[0] else "--")
    if chart.style != "points" or not chart.ticks:
        axes.xaxis.set_major_locator(MaxNLocator(integer=chart.whole, nbins=6))
        axes.set_xlabel(chart.x_label)
    else:
        axes.set_xticks(range(len(chart.ticks)), chart.ticks)
    if chart.diagonal:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    axes.margins(x=0.0 if chart.style == "shares" else 0.04)
    if chart.style == "lines" and all(0 <= y <= 1 for series in chart.series for y in series.y):
        axes.set_ylim(bottom=0)


def _points(axes: Axes, series: Series, color: str) -> None:
    error = None if series.error is None else np.array(series.error).T
    axes.errorbar(
        series.x, series.y, error, color=color, marker="o", markersize=4.5, capsize=3, lw=1.2, label=series.label
    )


def _line(axes: Axes, series: Series, color: str, dashes: str) -> None:
    """The curve; where it is long, also the mean of its neighbourhood, and the curve itself thin.

    Curves after the first are dashed, so that two that coincide are both seen.
    """
    if len(series.y) < SMOOTH_FROM:
        axes.plot(series.x, series.y, color=color, linewidth=1.5, linestyle=dashes, label=series.label)
        return
    width = max(3, len(series.y) // 12)
    counts = np.convolve(np.ones(len(series.y)), np.ones(width), mode="same")
    axes.plot(series.x, series.y, color=color, linewidth=0.8, alpha=0.35)
    smooth = np.convolve(series.y, np.ones(width), mode="same") / counts
    axes.plot(series.x, smooth, color=color, linewidth=1.6, linestyle=dashes, label=series.label)


def _thin(series: Series) -> Series:
    """At most MAX_POINTS points: means of equally many neighbours."""
    bins = np.array_split(np.arange(len(series.x)), min(len(series.x), MAX_POINTS))
    x, y = np.array(series.x), np.array(series.y)
    return Series(series.label, [float(x[b].mean()) for b in bins], [float(y[b].mean()) for b in bins])


def _inline(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    head, rest = svg.split(">", 1)
    box = head[head.index("viewBox=") :].split('"')[1]
    for color, variable in _VARIABLES.items():
        rest = rest.replace(color, f"var({variable})")
    return f'<svg viewBox="{box}" aria-hidden="true">{rest.strip()}'
