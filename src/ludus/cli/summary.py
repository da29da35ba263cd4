"""What a training run came to: the evaluations side by side, the change with its interval, and where to look next.

And what it will take, before it starts.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ludus import config
from ludus.cli.output import align, decimals, faint, heading, interval, plus_minus, short
from ludus.programs.dry_run import DryRun, gib
from ludus.programs.recipe import Recipe

ROWS = {"start": "start", "after_sft": "after SFT", "end": "end"}
DEMONSTRATOR = {"demonstrator": "demonstrator"}


MEMORY_NOTES = {
    "head": "the output projection in float32",
    "masters": "trained weights in float32",
    "moments": "AdamW's two",
    "activations": "kept of one micro-batch for the backward pass",
    "logits": "of one chunk",
}


def foreseen(found: DryRun) -> list[str]:
    """Lines of text on what a recipe will take."""
    share = "" if found.num_trained == found.num_parameters else f", {short(found.num_trained)} of them in an adapter"
    rows = [(part, gib(size), faint(MEMORY_NOTES.get(part, ""))) for part, size in found.memory.parts().items()]
    rows += [("in all", gib(found.memory.total), faint(f"{gib(found.free_bytes)} are free"))]
    tokens = found.tokens
    return [
        "",
        f"{heading('memory')}  " + faint(f"{short(found.num_parameters)} parameters{share}"),
        *("  " + line for line in align(rows, right=[1])),
        "  " + faint("beside it the sampler's cache, which takes up to a quarter of what is free"),
        "",
        f"{heading('work')}  " + faint("if every reply is as long as it may be"),
        f"  a rollout  {found.rollout_tokens:,.0f} tokens, of them {found.prompt_tokens:,.0f} prompt",
        f"  sampled    {short(int(tokens['sampled']))} tokens",
        f"  trained    {short(int(tokens['trained']))} tokens",
        f"  computing  {_duration(found.seconds)}" + faint("  of matrix products, at the speed measured here"),
        "",
    ]


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
    from ludus.programs.compare import scores_by_task
    from ludus.programs.statistics import paired_difference
    from ludus.store import RolloutIndex

    with RolloutIndex(run) as index:
        rows = [index.query(purpose=f"eval:{name}", last_attempts=True) for name in (first, last)]
    try:
        paired = paired_difference(*map(scores_by_task, rows))
    except UsageError:
        return ""
    change = f"{decimals(paired.difference.mean, signed=True)}, 95 % interval {interval(paired.interval, signed=True)}"
    return f"{ROWS[first]} → {ROWS[last]}: {heading(change)}"


def _next(run: Path, env: str) -> list[str]:
    """Commands to go on with, as a shell reads them; the expert is offered where SFT has learnt from it."""
    recipe = config.load(Recipe, run / "config.toml")
    environment = [env, *options_as_args(recipe.env_options)]
    models = ["--model", str(run), *(["--model", "demonstrator"] if recipe.sft else [])]
    commands = [
        ["show", str(run)],
        ["chat", str(run)],
        ["eval", *environment, *models],
        ["compare", "OTHER_RUN", str(run)],
        ["play", *environment],
    ]
    ludus = click.get_current_context().find_root().command_path
    return [shlex.join([ludus, *command]) for command in commands]


def options_as_args(options: Mapping[str, Any], table: str = "") -> list[str]:
    """Options of an environment as words that `--arg` reads back.

    >>> options_as_args({"turns": 3, "names": ["a", "b"], "size": {"high": 99}, "label": "true"})
    ['--arg', 'turns=3', '--arg', 'names=["a", "b"]', '--arg', 'size.high=99', '--arg', 'label="true"']
    """
    words = []
    for key, value in options.items():
        if isinstance(value, dict):
            words += options_as_args(value, f"{table}{key}.")
        else:
            bare = isinstance(value, str) and config.parse_value(value) == value
            words += ["--arg", f"{table}{key}={value if bare else json.dumps(value, ensure_ascii=False)}"]
    return words


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
