"""Compare two evaluations task by task: did B really do better than A, and on which tasks?

Scores are the rewards of the recorded rollouts, matched by task id; excluded rollouts are left out and counted. Of a
training run, the last evaluation that was finished is compared: with sampling, not the greedy one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ludus.errors import UsageError
from ludus.programs.evaluate import PURPOSE
from ludus.programs.members import AT
from ludus.programs.statistics import Estimate, PairedDifference, paired_difference
from ludus.store import IndexRow, RolloutIndex, RunFolder
from ludus.types import EnvironmentRef, content_hash

_SHOWN_TASKS = 10


@dataclass(frozen=True)
class Evaluation:
    """The scores of one evaluation, as read from its run folder."""

    path: Path
    purpose: str
    environment: EnvironmentRef
    """Of a mixture, all of them in one name."""
    scores: dict[str, list[float]]
    num_excluded: int
    stopped: str
    """Why it ended early, if it did."""

    @property
    def name(self) -> str:
        """The run folder's name, and the evaluation's where a folder can have several."""
        return self.path.name if self.purpose == PURPOSE else f"{self.path.name} ({self.purpose})"


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same environment, and their paired difference on the tasks that both have."""

    a: Evaluation
    b: Evaluation
    paired: PairedDifference
    notes: tuple[str, ...]
    """What a reader must know before believing the numbers; empty if nothing."""

    def to_table(self) -> list[tuple[str, str, str, str]]:
        """Header and rows: label, A, B, B - A."""
        a, b, difference = self.paired.a, self.paired.b, self.paired.difference
        return [
            ("", self.a.name, self.b.name, "difference"),
            ("score", _text(a), _text(b), _text(difference, signed=True)),
            ("95 % interval", _interval(a), _interval(b), _interval(difference)),
            ("tasks", str(len(self.a.scores)), str(len(self.b.scores)), f"{difference.num_tasks} in common"),
            ("excluded rollouts", str(self.a.num_excluded), str(self.b.num_excluded), ""),
        ]

    def lines(self) -> list[str]:
        """The comparison as text for a terminal: the table, gained and lost tasks, the verdict, notes."""
        table = self.to_table()
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
        text += ["", _tasks("gained", self.paired.gained), _tasks("lost", self.paired.lost)]
        if self.paired.mcnemar_p is not None:
            text.append(f"McNemar's exact test: p = {self.paired.mcnemar_p:.3g}")
        return [*text, self.verdict(), *(f"note: {note}" for note in self.notes)]

    def verdict(self) -> str:
        """One sentence: which is better, or that the difference is within the noise."""
        low, high = self.paired.interval
        if low > 0 or high < 0:
            better = self.b if low > 0 else self.a
            return f"{better.name} is better: the 95 % interval of the difference leaves out 0."
        return "No difference is shown: the 95 % interval of the difference includes 0, or there are too few tasks."


def compare(a: Path, b: Path) -> Comparison:
    """Compare the evaluations in two run folders.

    Raises:
        RunFolderError: not a run folder, or a damaged one.
        UsageError: no finished evaluation in one of them, different environments or options, or no task in common.
    """
    first, second = _read(a), _read(b)
    for what, x, y in (
        ("environment", first.environment.id, second.environment.id),
        ("options", first.environment.options, second.environment.options),
    ):
        if x != y:
            raise UsageError(f"these are evaluations of different tasks: {a} has {what} {x}, {b} has {what} {y}")
    return Comparison(first, second, paired_difference(first.scores, second.scores), _notes(first, second))


def scores_by_task(rows: Iterable[IndexRow]) -> dict[str, list[float]]:
    """The rewards of the rollouts that were not excluded, by task id."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        if not row.excluded:
            scores.setdefault(row.task, []).append(row.reward)
    return scores


def _read(path: Path) -> Evaluation:
    with RunFolder.open(path) as run, RolloutIndex(run.path) as index:
        known = [summary.purpose for summary in index.purposes()]
        purpose = chosen_purpose(run, [name.partition(AT)[0] for name in known])
        members = {name.partition(AT)[2]: name for name in known if name.partition(AT)[0] == purpose}
        rows = {member: index.query(purpose=name, last_attempts=True) for member, name in members.items()}
        environment = _together({member: index.get(own[0].id).environment for member, own in rows.items()})
        num_excluded = sum(row.excluded for own in rows.values() for row in own)
        scores = {
            f"{task}{AT}{member}" if member else task: values
            for member, own in rows.items()
            for task, values in scores_by_task(own).items()
        }
        stopped = (run.read_result() or {}).get("stopped", "")
        return Evaluation(path, purpose, environment, scores, num_excluded, stopped)


def _together(members: Mapping[str, EnvironmentRef]) -> EnvironmentRef:
    """Names the environments of a mixture as one; the only one as it is."""
    if "" in members:
        return members[""]
    refs = members.values()
    return EnvironmentRef(
        id=" + ".join(ref.id for ref in refs),
        options={name: ref.options for name, ref in members.items()},
        version=" + ".join(ref.version for ref in refs),
        hash=content_hash([ref.hash for ref in refs]),
    )


def chosen_purpose(run: RunFolder, purposes: Sequence[str]) -> str:
    """The last evaluation that has a result: its own, or a row in a training run's metrics. Raises UsageError."""
    finished = {f"eval:{row['eval/name']}" for row in run.read_metrics() if "eval/name" in row}
    if run.read_result() is not None:
        finished.add(PURPOSE)
    for purpose in reversed(purposes):
        if purpose in finished:
            return purpose
    raise UsageError(
        f"{run.given} holds no finished evaluation (it holds rollouts for: {', '.join(purposes) or 'nothing'}); run "
        f"ludus eval first, or finish what was begun"
    )


def success_reward(run: RunFolder) -> float:
    """The reward from which a rollout counts as a success: as the evaluation recorded it, or else 1."""
    value = (run.read_result() or {}).get("success_reward", 1.0)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 1.0


def _notes(a: Evaluation, b: Evaluation) -> tuple[str, ...]:
    notes = []
    if (a.environment.version, a.environment.hash) != (b.environment.version, b.environment.hash):
        notes.append("the environment's code differs between the two (another version or content hash)")
    notes += [f"{e.name} ended early: {e.stopped}" for e in (a, b) if e.stopped]
    unmatched = len(a.scores.keys() ^ b.scores.keys())
    if unmatched:
        notes.append(f"tasks in one evaluation only, left out: {unmatched}")
    samples = {count for e in (a, b) for count in Counter(map(len, e.scores.values()))}
    if len(samples) > 1:
        notes.append(f"samples per task vary from {min(samples)} to {max(samples)}; every task weighs the same")
    return tuple(notes)


def _text(estimate: Estimate, *, signed: bool = False) -> str:
    return f"{estimate.mean:{'+' if signed else ''}.4f} ± {estimate.se:.4f}"


def _interval(estimate: Estimate) -> str:
    low, high = estimate.interval()
    return f"[{low:.4f}, {high:.4f}]"


def _tasks(label: str, ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - _SHOWN_TASKS} more" if len(ids) > _SHOWN_TASKS else ""
    return f"{label} {len(ids)}" + (f": {', '.join(ids[:_SHOWN_TASKS])}{more}" if ids else "")
