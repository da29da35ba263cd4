"""Models side by side as text: a column a figure. The command line aligns it, the page shows it as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable

from ludus.display.numbers import decimals, short
from ludus.programs.frontier.compared import Section
from ludus.programs.frontier.measured import Measured
from ludus.programs.latency import LEAST_WAIT_S
from ludus.programs.statistics import Figure

Column = tuple[str, Callable[[Measured], str]]
METHOD = (
    "Costs are of the model's own calls in the rollouts that count. Times are of rollouts side by side, {at_once}; "
    "without waits for rate limits and without attempts that failed, which stand by themselves as what a rollout waited. "
    "To answer: from the model's first call to the end of its last, with tools and other roles in between. Intervals are "
    "95 % over tasks. On the front is a model that none of the others beats, by these figures; where intervals overlap, "
    "another evaluation may say otherwise."
)


def columns(section: Section) -> list[Column]:
    """The columns that say something about at least one model."""
    models = section.models
    found: list[Column] = [
        ("model", lambda m: m.model),
        ("accuracy", lambda m: decimals(m.accuracy.value)),
        ("95 %", lambda m: _interval(m.accuracy, decimals)),
    ]
    if any(m.reward.value != m.accuracy.value for m in models):
        found.append(("reward", lambda m: decimals(m.reward.value)))
    found += [("$ a task", lambda m: dollars(m.cost.value)), ("95 %", lambda m: _interval(m.cost, dollars))]
    if any(m.other_cost for m in models):
        found.append(("$ of other roles", lambda m: dollars(m.other_cost)))
    found += [
        ("to answer, median s", lambda m: seconds(m.answer.p50.value)),
        ("95 %", lambda m: _interval(m.answer.p50, seconds)),
        ("p95 s", lambda m: seconds(m.answer.p95.value)),
        ("95 %", lambda m: _interval(m.answer.p95, seconds)),
        ("rollout, p50 / p95 s", lambda m: f"{seconds(m.rollout.p50.value)} / {seconds(m.rollout.p95.value)}"),
    ]
    if any(m.waited_s >= LEAST_WAIT_S for m in models):
        found.append(("waited s", lambda m: seconds(m.waited_s)))
    found += [
        ("tokens in / out", lambda m: " / ".join(short(n) if math.isfinite(n) else "–" for n in m.tokens)),
        ("tasks", lambda m: str(m.num_tasks)),
    ]
    if any(m.num_excluded or m.num_retried for m in models):
        found.append(("excluded / retried", lambda m: f"{m.num_excluded} / {m.num_retried}"))
    return [*found, ("priced at", lambda m: m.priced), ("on the front of", lambda m: section.best_at(m) or "–")]


def method(section: Section) -> str:
    """How the figures came about, in a few sentences."""
    counts = sorted({model.concurrency for model in section.models} - {0})
    at_once = f"{' or '.join(map(str, counts))} at most" if counts else "how many is not known"
    return METHOD.format(at_once=at_once)


def dollars(value: float) -> str:
    """An amount with three telling digits.

    >>> dollars(0.01234), dollars(0), dollars(12.3456), dollars(0.0000321)
    ('0.0123', '0', '12.3', '0.0000321')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def seconds(value: float) -> str:
    """A time with two or three telling digits.

    >>> seconds(0.0123), seconds(3.14159), seconds(123.4)
    ('0.012', '3.1', '123')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _interval(figure: Figure, text: Callable[[float], str]) -> str:
    low, high = figure.interval
    return f"{text(low)} to {text(high)}" if math.isfinite(low) and math.isfinite(high) else "–"
