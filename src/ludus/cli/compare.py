"""`ludus compare`: two evaluations, task by task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.options import json_option
from ludus.cli.output import say, say_json

if TYPE_CHECKING:
    from ludus.programs.compare import Comparison, Evaluation
    from ludus.programs.statistics import Estimate


@click.command("compare")
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@json_option
def compare(a: Path, b: Path, as_json: bool) -> None:
    """Compare two evaluations task by task: is B better than A?

    A and B are run folders of evaluations, or of training runs, whose last finished evaluation then counts.
    """
    from ludus.programs.compare import compare as compare_runs

    comparison = compare_runs(a, b)
    if as_json:
        say_json(_values(comparison))
        return
    for line in comparison.lines():
        say(line)


def _values(comparison: Comparison) -> dict[str, Any]:
    paired = comparison.paired
    return {
        "a": _side(comparison.a, paired.a),
        "b": _side(comparison.b, paired.b),
        "difference": {
            "mean": paired.difference.mean,
            "se": paired.difference.se,
            "interval": paired.interval,
            "num_tasks": paired.difference.num_tasks,
        },
        "gained": paired.gained,
        "lost": paired.lost,
        "mcnemar_p": paired.mcnemar_p,
        "verdict": comparison.verdict(),
        "notes": comparison.notes,
    }


def _side(evaluation: Evaluation, estimate: Estimate) -> dict[str, Any]:
    return {
        "run": str(evaluation.path),
        "purpose": evaluation.purpose,
        "env": evaluation.environment.id,
        "mean": estimate.mean,
        "se": estimate.se,
        "num_tasks": len(evaluation.scores),
        "num_excluded": evaluation.num_excluded,
    }
