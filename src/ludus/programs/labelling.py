"""Which rollouts of a run to label, in which order; and labels together with what they are about."""

from __future__ import annotations

import random
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ludus.authoring.conversations import opening
from ludus.authoring.labels import SIGNAL, Label, judge_row, newest, read_signal
from ludus.errors import UnknownName, UsageError
from ludus.judging import Criterion, Rubric
from ludus.seeds import derive
from ludus.store import RolloutIndex, RunFolder
from ludus.store.durable import disk_errors, write_atomically
from ludus.store.labels import add_labels, read_labels
from ludus.types import Rollout

PREFIX = {"good": "Has", "bad": "Avoids"}


def to_label(run: Path, *, purpose: str | None = None, seed: int = 0, again: bool = False) -> list[str]:
    """Ids of rollouts, of each sample the last attempt, in an order drawn by the seed: rewards must not show through it.

    Excluded rollouts are left out, and so are those that a person has labelled.

    Args:
        run: the run folder.
        purpose: only those made for this.
        seed: draws the order.
        again: also those that are labelled.

    Raises:
        RunFolderError: no run folder.
        UnknownName: nothing was made for that.
        UsageError: the run has no rollouts.
    """
    done = set() if again else {label.rollout for label in read_labels(run) if label.source != SIGNAL}
    with RunFolder.open(run), RolloutIndex(run) as index:
        purposes = [summary.purpose for summary in index.purposes()]
        if purpose is not None and purpose not in purposes:
            raise UnknownName("purpose", purpose, purposes)
        rows = index.query(purpose=purpose, last_attempts=True)
    if not rows:
        raise UsageError(f"{run} has no rollouts to label yet")
    ids = [row.id for row in rows if not row.excluded and row.id not in done]
    random.Random(derive(seed, "label")).shuffle(ids)
    return ids


def labelled(run: str | Path) -> Iterator[tuple[Rollout, Label]]:
    """Each labelled rollout with the last word on it: what judges are tested against. Raises RunFolderError."""
    path = Path(run)
    with RunFolder.open(path), RolloutIndex(path) as index:
        for rollout, label in newest(read_labels(path)).items():
            try:
                yield index.get(rollout), label
            except UnknownName:
                continue  # the run was cut back to an earlier state since


def export_labels(run: str | Path, path: Path) -> int:
    """Write the labelled rollouts to a file that judges can be tested with, a line each; returns how many.

    Raises:
        UsageError: nothing is labelled, or the file would be one of the run's own.
        RunFolderError: no run folder, or the file can't be written.
    """
    _check_outside(run, path)
    rows = []
    for rollout, label in labelled(run):
        talk = rollout.messages
        begun = opening(talk)
        rows.append({**judge_row(label, rollout.task, begun, talk[len(begun) :]), "tools": rollout.tools})
    if not rows:
        raise UsageError(f"{run} has no labels yet: ludus label {run}")
    with disk_errors(f"write {path}"):
        write_atomically(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return len(rows)


def _check_outside(run: str | Path, path: Path) -> None:
    if path.resolve().is_relative_to(Path(run).resolve()):
        raise UsageError(f"{path} lies in the run's own folder, where it could replace what the run knows")


def criteria(labels: Iterable[Label]) -> list[Criterion]:
    """The reasons that people gave, as criteria, commonest first; a weight is the share of all reasons that say this.

    >>> [c.text for c in criteria([Label(rollout="a", verdict="bad", why="Too long."),
    ...                            Label(rollout="b", verdict="good", why="polite")])]
    ['Avoids: too long', 'Has: polite']
    """
    reasons = [(label.verdict, " ".join(label.why.casefold().split()).rstrip(".!")) for label in labels]
    counts = Counter(reason for reason in reasons if reason[1])
    return [
        Criterion(f"{verdict}_{number}", f"{PREFIX[verdict]}: {why}", n / counts.total())
        for number, ((verdict, why), n) in enumerate(counts.most_common(), 1)
    ]


def write_rubric(run: str | Path, path: Path) -> None:
    """Write the reasons that people gave as a rubric's file, which `Rubric.load` reads.

    Raises:
        UsageError: nobody has said why, or the file would be one of the run's own.
        RunFolderError: no run folder, or the file can't be written.
    """
    _check_outside(run, path)
    with RunFolder.open(Path(run)):
        found = criteria(newest(read_labels(run)).values())
    if not found:
        raise UsageError(f"{run} has no label with a reason yet: ludus label {run}")
    with disk_errors(f"write {path}"):
        Rubric(tuple(found)).save(path)


def rewards(run: str | Path) -> dict[str, float]:
    """1 for each rollout that was found good, 0 for each bad one, by id. Raises RunFolderError."""
    return {rollout: label.reward for rollout, label in newest(read_labels(Path(run))).items()}


def take_signals(run: Path, signals: Path) -> list[Label]:
    """Read a product's accept and reject signals into a run's labels, all or none.

    Raises:
        UsageError: a line that is no signal, or of a rollout that the run does not have; names the line.
        RunFolderError: no run folder.
    """
    with RunFolder.open(run), RolloutIndex(run) as index:
        known = {row.id: row.task for row in index.query()}
    labels = []
    for number, row in _rows(signals):
        try:
            label = read_signal(row)
            if label.rollout not in known:
                raise UnknownName("rollout", label.rollout, known)
        except UsageError as error:
            raise UsageError(f"{signals}, line {number}: {error}") from None
        labels.append(msgspec.structs.replace(label, task=known[label.rollout]))
    if not labels:
        raise UsageError(f'{signals} holds no signals: expected lines such as {{"rollout": "...", "accepted": true}}')
    add_labels(run, labels)
    return labels


def _rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise UsageError(f"{path}, line {number} is no JSON object: {error}") from None
