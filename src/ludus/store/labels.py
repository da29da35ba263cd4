"""RUN/labels.jsonl: what people said of a run's rollouts, beside the run. Lines are only ever added."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ludus.authoring.labels import Label
from ludus.errors import RunFolderError
from ludus.redaction import SECRETS
from ludus.store.durable import LineFile, disk_errors

NAME = "labels.jsonl"


def add_labels(run: str | Path, labels: Iterable[Label]) -> None:
    """Write labels down, also while the run goes on or somebody else labels. Raises RunFolderError."""
    path = Path(run) / NAME
    with disk_errors(f"write {path}"), _alone(path):
        file = LineFile(path)  # cuts off a torn last line: nobody else may be writing one
        try:
            for label in labels:
                file.append(msgspec.json.encode(SECRETS.hide(msgspec.to_builtins(label))) + b"\n")
        finally:
            file.close()


def read_labels(run: str | Path) -> list[Label]:
    """All labels in the order they were given; [] without any. Raises RunFolderError for a damaged line."""
    path = Path(run) / NAME
    with disk_errors(f"read {path}"):
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    labels = []
    for number, line in enumerate(lines, 1):
        try:
            labels.append(msgspec.json.decode(line, type=Label))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                continue  # torn by a crash; who labels next cuts it off
            raise RunFolderError(f"{path}, line {number} is damaged: {error}; delete that line") from None
    return labels


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
