"""What a training run came to: the evaluations side by side, the change with its interval, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ludus.cli.output import align, decimals, faint, heading, interval, plus_minus, short

ROWS = {"start": "start", "after_sft": "after SFT", "end": "end"}
DEMONSTRATOR = {"demonstrator": "demonstrator"}


def summary(result: Mapping[str, Any], env: str) -> list[str]:
    """Lines of text.

    Args:
        result: what result.json holds.
        env: what `ludus eval` takes.
    """
    run = Path(result["run"])
    steps, tokens = result["steps"], result["tokens"]
    took = f"{steps['sft']} SFT and {steps['rl']} RL steps, {_duration(result['seconds'])}"
    lines = ["", f"{heading(result['name'])}  " + faint(f"{took}, {short(tokens['sampled'])} tokens sampled"), ""]
    evaluations = {name: result["eval"][name] for name in ROWS if name in result["eval"]}
    if evaluations:
        expert = {name: result[name] for name in DEMONSTRATOR if result.get(name)}
        lines += ["  " + line for line in _table({**expert, **evaluations})] + [""]
        changes = [line for first, last in _pairs(evaluations) if (line := _change(run, first, last))]
        lines += ["  " + line for line in changes] + ([""] if changes else [])
    lines.append(f"  report  {result['report']}")
    lines.append(f"  model   {result['model']}")
    lines.append("")
    return lines + [faint(f"  {command}") for command in _next(run, env)]


def _table(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [[heading(name) for name in ("", "reward", "greedy", "turns", "excluded")]]
    for name, evaluation in evaluations.items():
        turns = evaluation["metrics"].get("num_turns")
        rows.append(
            [
                (ROWS | DEMONSTRATOR)[name],
                plus_minus(evaluation["mean"], evaluation["se"]),
                plus_minus(evaluation.get("greedy_mean"), evaluation.get("greedy_se")),
                "–" if turns is None else f"{turns:.2f}",
                str(evaluation["num_excluded"]),
            ]
        )
    return align(rows, right=range(1, 5))


def _pairs(evaluations: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which evaluations are compared: the whole way, and what RL added to SFT."""
    names = list(evaluations)
    pairs = [(names[0], names[-1])] if len(names) > 1 else []
    return [*pairs, ("after_sft", "end")] if len(names) == len(ROWS) else pairs


def _change(run: Path, first: str, last: str) -> str:
    """The paired difference of two evaluations of the run; "" where they have no task in common."""
    from ludus.errors import UsageError
    from ludus.programs.statistics import paired_difference
    from ludus.store import RolloutIndex

    with RolloutIndex(run) as index:
        scores = [_scores(index, f"eval:{name}") for name in (first, last)]
    try:
        paired = paired_difference(*scores)
    except UsageError:
        return ""
    change = f"{decimals(paired.difference.mean, signed=True)}, 95 % interval {interval(paired.interval, signed=True)}"
    return f"{ROWS[first]} → {ROWS[last]}: {heading(change)}"


def _scores(index: Any, purpose: str) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for row in index.query(purpose=purpose, last_attempts=True):
        if not row.excluded:
            scores.setdefault(row.task, []).append(row.reward)
    return scores


def _next(run: Path, env: str) -> list[str]:
    return [
        f"ludus show {run}",
        f"ludus chat {run}",
        f"ludus eval {env} --model {run} --model demonstrator",
        f"ludus compare OTHER_RUN {run}",
        f"ludus play {env}",
    ]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
