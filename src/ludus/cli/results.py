"""Evaluations as a table: a row a model, or a column a model where rows would not fit the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ludus.cli.output import align, decimals, heading, interval, plus_minus, short, terminal_width

if TYPE_CHECKING:
    from ludus.programs.evaluate import Evaluation

Column = tuple[str, Callable[["Evaluation"], str]]


def results_table(evaluations: Sequence[Evaluation]) -> list[str]:
    """Lines of text. Columns that say nothing (no cost, nothing excluded) are left out."""
    columns = _columns(evaluations)
    rows = [[heading(name) for name, _ in columns], *([cell(e) for _, cell in columns] for e in evaluations)]
    lines = align(rows, right=range(1, len(columns)))
    if len(evaluations) > 1 and max(map(len, lines[1:])) <= terminal_width():
        return lines
    return align([list(row) for row in zip(*rows, strict=True)])


def _columns(evaluations: Sequence[Evaluation]) -> list[Column]:
    columns: list[Column] = [
        ("model", lambda e: e.model),
        ("reward", lambda e: plus_minus(e.mean, e.se)),
        ("95 % interval", lambda e: interval(e.interval)),
    ]
    excluded = any(e.num_excluded for e in evaluations)
    if excluded:
        columns.append(("bounds", lambda e: interval(e.bounds)))
    columns += [(f"pass@{k}", partial(_pass_at, k)) for k in _ks(evaluations)]
    if len(evaluations) == 1:
        names = [name for name in evaluations[0].metrics if name != "num_turns"]
        columns += [(name, partial(_metric, name)) for name in names]
    columns += [
        ("turns", lambda e: f"{e.metrics['num_turns']:.1f}" if "num_turns" in e.metrics else "–"),
        ("tokens in / out", lambda e: f"{short(e.tokens['prompt'])} / {short(e.tokens['completion'])}"),
    ]
    if any(e.cost for e in evaluations):
        columns.append(("cost", lambda e: f"${e.cost:.4f}"))
    columns += [("p50 / p90 s", _latency), ("cut off", lambda e: f"{e.truncated_rate:.1%}")]
    if any(e.failed_rate for e in evaluations):
        columns.append(("failed", lambda e: f"{e.failed_rate:.1%}"))
    columns.append(("excluded", lambda e: f"{e.num_excluded} ({e.excluded_rate:.1%})" if e.num_excluded else "0"))
    return columns


def _ks(evaluations: Sequence[Evaluation]) -> list[str]:
    """Every k of one model; of several the largest, and 1 where that is not the mean reward."""
    ks = list(dict.fromkeys(k for e in evaluations for k in e.pass_at))
    if len(evaluations) == 1 or len(ks) < 2:
        return ks
    return [*(["1"] if any(e.pass_at.get("1") != e.mean for e in evaluations) else []), ks[-1]]


def _pass_at(k: str, evaluation: Evaluation) -> str:
    return decimals(evaluation.pass_at.get(k))


def _metric(name: str, evaluation: Evaluation) -> str:
    return decimals(evaluation.metrics.get(name))


def _latency(evaluation: Evaluation) -> str:
    return " / ".join(f"{evaluation.latency_s[q]:.2g}" if q in evaluation.latency_s else "–" for q in ("p50", "p90"))
