"""The tasks of a package while they are written, split by split."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO

import msgspec

from ludus.types import Task

SPLITS = ("train", "test")


class Splits(ExitStack):
    """Files of tasks; closed with it.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.counts = dict.fromkeys(SPLITS, 0)
        """Tasks that were written."""
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._reserve: tuple[str, Task] | None = None
        """One task is written last: into the split that would otherwise have none."""
        self._left_out: dict[int, str] = {}
        self._places: list[str] = []

    def add(self, split: str, task: Task) -> None:
        """Write a task, or keep it in reserve."""
        if self._reserve is None:
            self._reserve = (split, task)
        else:
            self._write(split, msgspec.json.encode(task) + b"\n")

    def leave_out(self, number: int, where: str) -> None:
        """A task that was added, by its id's number, is not wanted any more, for what is said there."""
        if self._reserve is not None and int(self._reserve[1].id, 16) == number:
            self._reserve = None  # the next one is
            self._places.append(where)
        else:
            self._left_out[number] = where

    def finish(self) -> list[str]:
        """Write what is left to write; returns where it was said of each task that was left out."""
        for split in list(self._files) if self._left_out else ():
            self._again(split)
        if self._reserve is not None:
            split, task = self._reserve
            empty = [other for other, count in self.counts.items() if not count and other != split]
            self._write(empty[0] if empty and self.counts[split] else split, msgspec.json.encode(task) + b"\n")
        self.close()
        return self._places

    def _again(self, split: str) -> None:
        """Write a split again, without those that are left out."""
        self._files.pop(split).close()
        self.counts[split] = 0
        path = self._path(split)
        before = path.rename(path.with_suffix(".before"))
        with before.open("rb") as lines:
            for line in lines:
                where = self._left_out.get(int(_identified(line).id, 16))
                if where is None:
                    self._write(split, line)
                else:
                    self._places.append(where)
        before.unlink()

    def _write(self, split: str, line: bytes) -> None:
        if split not in self._files:
            self._files[split] = self.enter_context(self._path(split).open("wb"))
        self._files[split].write(line)
        self.counts[split] += 1

    def _path(self, split: str) -> Path:
        return self._folder / f"{split}.jsonl"


class _Identified(msgspec.Struct):
    """What is read of a task to tell which one it is."""

    id: str


_identified = msgspec.json.Decoder(_Identified).decode
