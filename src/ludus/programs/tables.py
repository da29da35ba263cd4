"""Results as rows of text: evaluations side by side, and what a training run came to.

The command line aligns them, notebooks show them as HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ludus.display.numbers import decimals, duration, interval, plus_minus, short
from ludus.display.sandboxes import tiers_text
from ludus.programs.latency import LEAST_WAIT_S
from ludus.programs.members import AT, with_members

if TYPE_CHECKING:
    from ludus.programs.evaluate import Evaluation

STAGES = {"start": "start", "after_sft": "after SFT", "end": "end"}
"""The evaluations of a training run that are compared."""
Column = tuple[str, Callable[["Evaluation"], str]]


# --- a training run -----------------------------------------------------------------------------------------------


def stages(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The evaluations of a training run by name, in order."""
    return {name: result["eval"][name] for name in STAGES if name in result["eval"]}


def training_table(result: Mapping[str, Any]) -> list[list[str]]:
    """A row of figures for each evaluation of a training run, the expert's first, and under it one for each environment of
    a mixture; [] where nothing was evaluated.

    Args:
        result: what result.json holds.
    """
    evaluations = {STAGES[name]: evaluation for name, evaluation in stages(result).items()}
    if not evaluations:
        return []
    if result.get("demonstrator"):
        evaluations = {"demonstrator": result["demonstrator"], **evaluations}
    evaluations = {name.replace(AT, ", "): found for name, found in with_members(evaluations).items()}
    rows = [["", "reward", "greedy", "turns", "excluded"]]
    for name, evaluation in evaluations.items():
        turns = evaluation["metrics"].get("num_turns")
        rows.append([
            name,
            plus_minus(evaluation["mean"], evaluation["se"]),
            plus_minus(evaluation.get("greedy_mean"), evaluation.get("greedy_se")),
            "–" if turns is None else f"{turns:.2f}",
            str(evaluation["num_excluded"]),
        ])  # fmt: skip
    return rows


def training_effort(result: Mapping[str, Any]) -> str:
    """What a training run took."""
    steps, tokens = result["steps"], result["tokens"]
    took = f"{steps['sft']} SFT and {steps['rl']} RL steps, {duration(result['seconds'])}"
    return f"{took}, {short(tokens['sampled'])} tokens sampled"


def training_changes(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What changed between evaluations of a training run: the whole way, and what RL added to SFT.

    Differences are paired by task, of a mixture in each environment; of each, what is compared, and the mean with its
    interval.
    """
    names = list(stages(result))
    pairs = [(names[0], names[-1])] if len(names) > 1 else []
    if len(names) == len(STAGES):
        pairs.append(("after_sft", "end"))
    endings = [f"{AT}{member}" for member in stages(result)[names[0]].get("envs", ())] if names else []
    changes = [
        (
            f"{STAGES[first]} → {STAGES[last]}{ending.replace(AT, ', ')}",
            _change(Path(result["run"]), f"eval:{first}{ending}", f"eval:{last}{ending}"),
        )
        for first, last in pairs
        for ending in endings or [""]
    ]
    return [(name, change) for name, change in changes if change]


def _change(run: Path, first: str, last: str) -> str:
    """The paired difference of two purposes of a run; "" where they have no task in common."""
    from ludus.errors import UsageError
    from ludus.programs.compare import scores_by_task
    from ludus.programs.statistics import paired_difference
    from ludus.store import RolloutIndex

    with RolloutIndex(run) as index:
        rows = [index.query(purpose=purpose, last_attempts=True) for purpose in (first, last)]
    try:
        paired = paired_difference(*map(scores_by_task, rows))
    except UsageError:
        return ""
    return f"{decimals(paired.difference.mean, signed=True)}, 95 % interval {interval(paired.interval, signed=True)}"


# --- evaluations --------------------------------------------------------------------------------------------------


def evaluation_table(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """A row for each evaluation, under headings. Columns that say nothing (no cost, nothing excluded) are left out."""
    columns = _columns(evaluations)
    return [[name for name, _ in columns], *([cell(e) for _, cell in columns] for e in evaluations)]


def _columns(evaluations: Sequence[Evaluation]) -> list[Column]:
    columns: list[Column] = [("environment", lambda e: e.env)] if len({e.env for e in evaluations}) > 1 else []
    columns += [
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
    columns.append(("p50 / p90 s", _latency))
    if any(e.waited_s >= LEAST_WAIT_S for e in evaluations):
        columns.append(("waited s", lambda e: f"{e.waited_s:.2g}"))
    columns.append(("cut off", lambda e: f"{e.truncated_rate:.1%}"))
    if any(e.failed_rate for e in evaluations):
        columns.append(("failed", lambda e: f"{e.failed_rate:.1%}"))
    columns.append(("excluded", lambda e: f"{e.num_excluded} ({e.excluded_rate:.1%})" if e.num_excluded else "0"))
    if any(e.sandboxes for e in evaluations):
        columns.append(("sandboxes", lambda e: tiers_text(e.sandboxes) or "–"))
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
