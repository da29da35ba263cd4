"""Evaluations as a table: a row a model, or a column a model where rows would not fit the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    ks = list(dict.fromkeys(k for e in evaluations for k in e.pass_at))
    columns += [(f"pass@{k}", lambda e, k=k: decimals(e.pass_at.get(k))) for k in ks]  # type: ignore[misc]
    names = dict.fromkeys(name for e in evaluations for name in e.metrics if name not in ("num_turns", "turns"))
    if len(evaluations) == 1 or len(names) == 1:
        columns += [(name, lambda e, name=name: decimals(e.metrics.get(name))) for name in names]  # type: ignore[misc]
    columns += [
        ("turns", lambda e: f"{e.metrics['num_turns']:.1f}" if "num_turns" in e.metrics else "–"),
        ("tokens in / out", lambda e: f"{short(e.tokens['prompt'])} / {short(e.tokens['completion'])}"),
    ]
    if any(e.cost for e in evaluations):
        columns.append(("cost", lambda e: f"${e.cost:.4f}"))
    columns += [("p50 / p90 seconds", _latency), ("cut off", lambda e: f"{e.truncated_rate:.1%}")]
    if any(e.failed_rate for e in evaluations):
        columns.append(("failed", lambda e: f"{e.failed_rate:.1%}"))
    columns.append(("excluded", lambda e: f"{e.num_excluded} ({e.excluded_rate:.1%})" if e.num_excluded else "0"))
    return columns


def _latency(evaluation: Evaluation) -> str:
    return " / ".join(f"{evaluation.latency_s[q]:.2g}" if q in evaluation.latency_s else "–" for q in ("p50", "p90"))
