"""`card(run)`: the card of a model from an evaluation, as a page that needs no network and runs no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ludus.programs.card import checks, figures
from ludus.programs.card.answers import Answered, read, right_by_task
from ludus.programs.card.checks import Check
from ludus.programs.card.figures import Point
from ludus.programs.report.charts import Chart, Series
from ludus.programs.report.page import drawn, template
from ludus.programs.report.words import clean
from ludus.programs.statistics import Figure, mean_pass_at_k, mean_pass_hat_k, wilson
from ludus.store.durable import disk_errors, write_atomically

MOST_CURVES = 5
"""Skills in one chart: as many as there are colours."""
DODGE = 0.07
"""Levels between curves of one chart, so that no interval hides another."""


@dataclass(frozen=True)
class Row:
    """A figure with its name and what it means."""

    name: str
    figure: Figure
    means: str
    text: Callable[[float], str] = "{:.3f}".format

    @property
    def shown(self) -> str:
        return self.text(self.figure.value) if math.isfinite(self.figure.value) else "–"

    @property
    def range(self) -> str:
        ends = self.figure.interval
        return " to ".join(map(self.text, ends)) if all(map(math.isfinite, ends)) else "–"

    @property
    def num_tasks(self) -> int:
        return self.figure.num_tasks


@dataclass(frozen=True)
class Card:
    """What is known of a model in an environment."""

    model: str
    env: str
    num_tasks: int
    num_rollouts: int
    num_excluded: int
    figures: list[Row]
    curves: Mapping[str, list[Point]]
    """Points by the curve's name: skill, skill/SKILL, tokens, calibration, budget."""
    checks: list[Check]
    sure_from: str
    """Where the model's certainty is from: stated, or the agreement of its samples."""
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "model": self.model, "env": self.env, "num_tasks": self.num_tasks, "num_rollouts": self.num_rollouts,
            "num_excluded": self.num_excluded, "sure_from": self.sure_from,
            "figures": {row.name: asdict(row.figure) for row in self.figures},
            "curves": {name: [asdict(point) for point in points] for name, points in self.curves.items()},
            "checks": [{**asdict(check), "verdict": check.verdict} for check in self.checks],
            "page": str(self.path),
        }  # fmt: skip


def card(run: Path, *, reworded: Path | None = None, reseeded: Path | None = None) -> Card:
    """Write card.html into the run folder of an evaluation.

    Args:
        run: the evaluation; a training run's last one counts.
        reworded: an evaluation of the same tasks in other words.
        reseeded: one of other tasks from the same generators.

    Raises:
        RunFolderError: not a run folder, or one that is damaged or can't be written to.
        UsageError: nothing was scored, or an evaluation that can't be compared with the first.
    """
    found = read(run)
    compared = [
        check(found, read(other))
        for check, other in ((checks.reworded, reworded), (checks.reseeded, reseeded))
        if other is not None
    ]
    source, sure = figures.sureness(found.answers)
    curves = {
        "skill": figures.skill_curve(found.answers),
        **{f"skill/{name}": points for name, points in figures.skill_curves(found.answers).items()},
        "tokens": figures.tokens_by_level(found.answers),
        "calibration": figures.calibration_curve(sure),
        "budget": figures.budget_curve(found.answers),
    }
    made = Card(
        model=found.model, env=found.env, num_tasks=len({answer.task for answer in found.answers}),
        num_rollouts=len(found.answers), num_excluded=found.num_excluded, figures=rows(found.answers, sure, source),
        curves={name: points for name, points in curves.items() if points}, checks=compared, sure_from=source,
        path=run / "card.html",
    )  # fmt: skip
    charts, note = drawn(charts_of(made))
    page = template("card.html.j2", "ludus.programs.card").render(card=made, charts=charts, charts_note=note)
    with disk_errors(f"write {made.path}"):
        write_atomically(made.path, page.encode())
    return made


def rows(answers: Sequence[Answered], sure: Sequence[tuple[Answered, float]], source: str) -> list[Row]:
    """The figures that the answers allow, the most telling first."""
    tokens, share = "{:,.0f}".format, "{:.1%}".format
    said = "the model says" if source == "stated" else "its other samples agree"
    planned = [answer for answer in answers if answer.adherence is not None]
    found = [
        Row("accuracy", figures.accuracy(answers), "share of right answers"),
        Row("tokens", figures.rate(answers, lambda a: float(a.tokens)), "of a rollout, thinking included", tokens),
        Row("calibration error", figures.calibration_error(sure), f"how far off it is how sure {said}; 0 is best"),
        Row("overthinking", figures.overthinking(answers), "tokens on easy tasks beyond their shortest right answer",
            share),
        Row("effort follows difficulty", figures.effort(answers), "rank correlation of tokens and share of wrong answers"),
        Row("Brier score", figures.brier_score(sure), "squared error of certainty; always saying 50 % gets 0.25"),
        *_over_samples(answers),
        Row("backtracking", figures.share(answers, lambda a: a.backtracks > 0), "rollouts with second thoughts",
            share),
        Row("restarts", figures.share(answers, lambda a: a.restarts > 0), "rollouts that begin anew", share),
        Row("plan adherence", figures.rate(planned, lambda a: a.adherence or 0.0), "steps of a plan that were taken up",
            share),
        Row("cut off", figures.share(answers, lambda a: a.truncated), "rollouts that hit a token limit", share),
    ]  # fmt: skip
    return [row for row in found if math.isfinite(row.figure.value)]


def _over_samples(answers: Sequence[Answered]) -> list[Row]:
    """Coverage pass@k and reliability pass^k at the largest k that a power of two allows; of one sample, none."""
    right = {task: [value > 0 for value in values] for task, values in right_by_task(answers).items()}
    most = max(map(len, right.values()))
    k = 1 << (most.bit_length() - 1)
    if k < 2:
        return []
    at, hat = mean_pass_at_k(right, k), mean_pass_hat_k(right, k)
    return [
        Row(
            f"coverage pass@{k}",
            Figure(at.mean, wilson(at.mean, at.num_tasks), at.num_tasks),
            f"at least one of {k} samples is right",
        ),
        Row(
            f"reliability pass^{k}",
            Figure(hat.mean, wilson(hat.mean, hat.num_tasks), hat.num_tasks),
            f"all of {k} samples are right",
        ),
    ]


def charts_of(made: Card) -> list[Chart]:
    """The curves, in reading order."""
    names = [name for name in made.curves if name.startswith("skill/")]
    sure = "what the model says" if made.sure_from == "stated" else "agreement with its other samples"
    charts = [_chart(made, "Skill: accuracy by difficulty", ["skill"], "difficulty")]
    for start in range(0, len(names), MOST_CURVES):
        charts.append(_chart(made, "The same, by skill", names[start : start + MOST_CURVES], "difficulty"))
    charts += [
        _chart(made, "Calibration: accuracy by certainty", ["calibration"], sure, whole=False, diagonal=True),
        _chart(made, "Budget: accuracy if cut off", ["budget"], "tokens"),
        _chart(made, "Tokens by difficulty", ["tokens"], "difficulty"),
    ]
    return [chart for chart in charts if chart.series]


def _chart(made: Card, title: str, names: Sequence[str], x_label: str, **style: Any) -> Chart:
    curves = {name: made.curves[name] for name in names if name in made.curves}
    series = [
        Series(
            clean(name.removeprefix("skill/")),
            [point.x + DODGE * (number - (len(curves) - 1) / 2) for point in points],
            [point.mean for point in points],
            [_half_lengths(point) for point in points],
        )
        for number, (name, points) in enumerate(curves.items())
    ]
    return Chart(title, series, "points", x_label=x_label, **style)


def _half_lengths(point: Point) -> tuple[float, float]:
    """Below and above the mean; 0 where there is no interval."""
    low, high = (end if math.isfinite(end) else point.mean for end in point.interval)
    return max(0.0, point.mean - low), max(0.0, high - point.mean)
