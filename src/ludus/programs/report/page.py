"""`report(run)`: a run folder as one HTML file that needs no network and runs no script.

Everything a model, a tool or a configuration wrote is escaped, and control characters (terminal escapes, text that
reverses its direction) are removed. What a run does not have is left out of its report.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ludus.display.numbers import duration
from ludus.display.sandboxes import tiers_text
from ludus.errors import MissingExtra, RunFolderError, UsageError
from ludus.programs.compare import scores_by_task
from ludus.programs.members import AT, by_member, with_members
from ludus.programs.report.charts import Chart, charts_of, draw
from ludus.programs.report.rescoring import SHOWN_WHOLE, Rescoring
from ludus.programs.report.samples import Sample, choose_purposes, choose_samples
from ludus.programs.report.words import clean, name_of, number, score
from ludus.programs.statistics import PairedDifference, paired_difference
from ludus.store import RolloutIndex, RunFolder
from ludus.store.durable import disk_errors, write_atomically

_RANGES = {"interval": "95 % interval", "bounds": "with exclusions at worst and best"}


@dataclass(frozen=True)
class Section:
    """What a report says of the rollouts in one environment."""

    member: str
    """Its name in a mixture; "" where it is the only one."""
    difference: PairedDifference | None
    samples: list[list[Sample]]
    num_columns: int


def report(run: Path, rescored: Rescoring | None = None) -> Path:
    """Write report.html into a run folder.

    Args:
        run: the folder of a training run or of an evaluation, finished or not.
        rescored: its rewards beside those of today's scorers, where they are to be shown.

    Returns:
        The file that was written.

    Raises:
        RunFolderError: not a run folder, or one that is damaged or can't be written to.
    """
    with RunFolder.open(run) as folder, RolloutIndex(run) as index:
        rows, result = folder.read_metrics(), folder.read_result() or {}
        summaries = index.purposes()
        charts, charts_note = drawn(charts_of(rows))
        html = template("report.html.j2").render(
            title=run.resolve().name,
            cards=cards(rows, result),
            alarms=[alarm for alarm in result.get("alarms") or () if isinstance(alarm, str)],
            config=_config(run / "config.toml"),
            evaluations=_evaluations(result),
            facts=_facts(result),
            sections=_sections(index, [summary.purpose for summary in summaries]),
            summaries=summaries,
            charts=charts,
            charts_note=charts_note,
            rescored=rescored,
            num_shown_whole=SHOWN_WHOLE,
        )
    path = run / "report.html"
    with disk_errors(f"write {path}"):
        write_atomically(path, html.encode())
    return path


def cards(rows: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The few numbers at the top of the page: (label, value)."""
    found = []
    evaluations = list(_table(result, "eval").values())
    if len(evaluations) > 1:
        first, last = (score(evaluation.get("mean")) for evaluation in (evaluations[0], evaluations[-1]))
        found.append(("score, before → after", f"{first} → {last}"))
    elif evaluations or "mean" in result:
        scored = evaluations[0] if evaluations else result
        found.append(("score", f"{score(scored.get('mean'))} ± {score(scored.get('se'))}"))
    steps = sum(row.get("phase") == "rl" for row in rows)
    found += [("RL steps", number(steps))] if steps else []
    found += [("tasks", number(result["num_tasks"]))] if "num_tasks" in result else []
    tokens = result.get("tokens")
    if isinstance(tokens, dict):
        found += [(f"tokens {what}", number(tokens[what])) for what in ("sampled", "completion") if what in tokens]
    elif tokens is not None:
        found.append(("tokens", number(tokens)))
    found += [("sandboxes", tiers_text(result["sandboxes"]))] if result.get("sandboxes") else []
    found += [("time", duration(result["seconds"]))] if isinstance(result.get("seconds"), int | float) else []
    return found


def template(name: str, package: str = "ludus.programs.report") -> Any:
    """A page's template: what is put in is escaped and without control characters."""
    folders = dict.fromkeys([package, "ludus.programs.report"])
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(folder, ".") for folder in folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters |= {"number": number, "score": score, "name": name_of}
    return environment.get_template(name)


def drawn(charts: Sequence[Chart]) -> tuple[list[tuple[Chart, Markup]], str]:
    """Charts with their SVG, or none and why."""
    try:
        return [(chart, Markup(draw(chart))) for chart in charts], ""
    except MissingExtra as missing:
        return [], str(missing)


def _config(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    try:
        return list(_flat(tomllib.loads(path.read_text(encoding="utf-8"))))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            for number, entry in enumerate(value):
                yield from _flat(entry, f"{prefix}{key}.{number}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else str(value)


def _evaluations(result: Mapping[str, Any]) -> dict[str, Any]:
    """Header and rows of the result table of a training run; {} where there is none."""
    evaluations = with_members(_table(result, "eval"))
    metrics = list(dict.fromkeys(name for e in evaluations.values() for name in e.get("metrics") or {}))
    rows = [
        {
            "name": name,
            "mean": e.get("mean"),
            "se": e.get("se"),
            "greedy": e.get("greedy_mean"),
            "num_tasks": e.get("num_tasks"),
            "metrics": [(e.get("metrics") or {}).get(metric) for metric in metrics],
        }
        for name, e in evaluations.items()
    ]
    return {"metrics": metrics, "rows": rows} if rows else {}


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a pure evaluation found, as label and text."""
    if "mean" not in result:
        return []
    facts = [(label, number(result[key])) for key, label in (
        ("env", "environment"), ("model", "model"), ("num_tasks", "tasks"), ("samples", "samples per task"),
    ) if key in result]  # fmt: skip
    facts.append(("score", f"{score(result['mean'])} ± {score(result.get('se'))}"))
    facts += [(label, " to ".join(map(score, result[key]))) for key, label in _RANGES.items() if result.get(key)]
    for key, symbol in (("pass_at", "pass@"), ("pass_hat", "pass^")):
        facts += [(f"{symbol}{k}", score(_value(value))) for k, value in _table(result, key).items()]
    facts += [(name, number(_value(value))) for name, value in _table(result, "metrics").items()]
    if "num_excluded" in result:
        facts.append(("excluded rollouts", number(result["num_excluded"])))
    return facts


def _sections(index: RolloutIndex, purposes: Sequence[str]) -> list[Section]:
    """One of each environment: of a mixture several."""
    sections = []
    for member, own in by_member(purposes).items():
        ending = f"{AT}{member}" if member else ""
        chosen = [purpose + ending for purpose in choose_purposes([purpose.removesuffix(ending) for purpose in own])]
        sections.append(Section(member, _difference(index, chosen), choose_samples(index, chosen), len(chosen)))
    return sections


def _difference(index: RolloutIndex, purposes: Sequence[str]) -> PairedDifference | None:
    """The last evaluation against the first, task by task."""
    if len(purposes) < 2:
        return None
    rows = [index.query(purpose=purpose, last_attempts=True) for purpose in (purposes[0], purposes[-1])]
    try:
        return paired_difference(*map(scores_by_task, rows))
    except UsageError:  # no task in common: nothing to say
        return None


def _table(result: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = result.get(key)
    return value if isinstance(value, dict) else {}


def _value(value: Any) -> Any:
    """A number, or the mean of {"mean": ..., "se": ...}."""
    return value.get("mean") if isinstance(value, dict) else value
