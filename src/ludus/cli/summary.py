"""What a training run came to: the evaluations side by side, the change with its interval, and where to look next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ludus import config
from ludus.cli.output import align, faint, heading, terminal_width
from ludus.display.sandboxes import tiers_text
from ludus.programs.recipe import Recipe
from ludus.programs.tables import training_changes, training_effort, training_table


def summary(result: Mapping[str, Any]) -> list[str]:
    """Lines of text, of what result.json holds."""
    run = Path(result["run"])
    lines = ["", f"{heading(result['name'])}  {faint(training_effort(result))}", ""]
    if table := training_table(result):
        changes = [f"  {name}: {heading(change)}" for name, change in training_changes(result)]
        lines += [*_fitting(table), "", *changes, *([""] if changes else [])]
    if tiers := result.get("sandboxes"):
        lines += [f"  sandboxes  {tiers_text(tiers)}", ""]
    for alarm in result.get("alarms", []):
        lines += [click.style(f"  {alarm}", fg="yellow"), ""]
    lines.append(f"  report  {result['report']}")
    lines.append(f"  model   {result['model']}")
    lines.append("")
    return lines + [faint(f"  {command}") for command in _next(run)]


def _fitting(table: list[list[str]]) -> list[str]:
    """The table as lines, without its last columns where the terminal is too narrow for them."""
    names, *rows = table
    for columns in range(len(names), 1, -1):
        cells = [[heading(name) for name in names[:columns]], *(row[:columns] for row in rows)]
        lines = ["  " + line for line in align(cells, right=range(1, columns))]
        if max(map(len, lines[1:])) <= terminal_width():
            break
    return lines


def _next(run: Path) -> list[str]:
    """Commands to go on with, as a shell reads them; the expert is offered where SFT has learnt from it."""
    recipe = config.load(Recipe, run / "config.toml")
    first = next(iter(recipe.environments.values()))
    environment = [first.env, *options_as_args(first.options)]
    evaluated = [str(run / "config.toml")] if recipe.envs else environment
    models = ["--model", str(run), *(["--model", "demonstrator"] if recipe.sft else [])]
    commands = [
        ["show", str(run)],
        ["chat", str(run)],
        ["eval", *evaluated, *models],
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
