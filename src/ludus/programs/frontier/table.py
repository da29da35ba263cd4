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
    "In brackets: 95 % intervals over tasks. Costs are of the model's own calls in the rollouts that count. Times are "
    "median and 95th percentile of rollouts side by side, {at_once}, without waits for rate limits and without attempts "
    "that failed, which are counted apart as what a rollout waited. To answer: from the model's first call to the end of "
    "its last, with tools and other roles in between; rollout: from setup to the last scorer. On the front is whom none "
    "of the others beats, by these figures; where intervals overlap, another evaluation may say otherwise."
)


def columns(section: Section) -> list[Column]:
    """The columns that say something about at least one model."""
    models = [model for model in section.models if model.num_tasks]
    found: list[Column] = [
        ("model", lambda m: m.model),
        ("accuracy", lambda m: _within(m.accuracy, decimals)),
    ]
    if any(m.reward.value != m.accuracy.value for m in models):
        found.append(("reward", lambda m: decimals(m.reward.value)))
    found.append(("$ a task", lambda m: _within(m.cost, dollars)))
    if any(m.other_cost for m in models):
        found.append(("$ of other roles", lambda m: dollars(m.other_cost)))
    found += [
        ("s to answer", lambda m: _within(m.answer.p50, seconds)),
        ("p95 s", lambda m: _within(m.answer.p95, seconds)),
        ("front", lambda m: section.best_at(m) or "–"),
        ("rollout s", lambda m: f"{seconds(m.rollout.p50.value)} / {seconds(m.rollout.p95.value)}"),
    ]
    if any(m.waited_s >= LEAST_WAIT_S for m in models):
        found.append(("waited s", lambda m: seconds(m.waited_s)))
    found += [
        ("tokens in / out", lambda m: " / ".join(short(n) if math.isfinite(n) else "–" for n in m.tokens)),
        ("tasks", lambda m: str(m.num_tasks)),
    ]
    if any(m.num_excluded or m.num_retried for m in section.models):
        found.append(("excluded / retried", lambda m: f"{m.num_excluded} / {m.num_retried}"))
    return [*found, ("priced at", lambda m: m.priced)]


def table(section: Section) -> list[list[str]]:
    """Headings, and a row a model."""
    found = columns(section)
    return [[name for name, _ in found], *([cell(model) for _, cell in found] for model in section.models)]


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


def _within(figure: Figure, text: Callable[[float], str]) -> str:
    """A figure with its interval behind it, where that is one."""
    low, high = map(text, figure.interval)
    return text(figure.value) + (f" [{low}, {high}]" if low != high else "")
