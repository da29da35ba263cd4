"""The truth of a run: append-only segments of rollout records, `rollouts/000001.jsonl`, ...

Every writer starts a new segment, so a line torn by a crash stays the last of its segment and is never written after.
One write per record on an O_APPEND descriptor: a reader sees whole records, and nothing blocks on an index or a commit
(`index.py` catches up from the segments when someone asks). Left out: fsync per record; saving a state syncs the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ludus.errors import RunFolderError
from ludus.store import record
from ludus.store.durable import LineFile, disk_errors
from ludus.types import Rollout

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20


class Location(msgspec.Struct, frozen=True):
    """Where a record's line stands: segment file name, byte offset, length in bytes (newline included)."""

    segment: str
    offset: int
    length: int


class RolloutLog:
    """Append and read the rollouts of a run.

    Args:
        folder: the run's `rollouts` folder; made at the first append.
        writable: False where another process may be the writer.
        segment_bytes: a segment that has reached this size is not appended to any more.
    """

    def __init__(self, folder: Path, *, writable: bool = True, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._writable = writable
        self._segment_bytes = segment_bytes
        self._file: LineFile | None = None

    def append(self, rollout: Rollout) -> Location:
        """Write one record whole. One process appends to a log at a time (the run folder's lock sees to it).

        Raises:
            RunFolderError: disk full, I/O error (nothing of the record is left in the log), or the log is for reading.
        """
        if not self._writable:
            raise RunFolderError(f"{self.folder} is open for reading only; use RunFolder.resume to write")
        line = record.encode(rollout)
        with disk_errors(f"record rollout {rollout.id} in {self.folder}"):
            file = self._segment()
            try:
                offset = file.append(line)
            except OSError:
                self.close()  # should the cut have failed too, the torn line stays the last of its segment
                raise
        return Location(file.path.name, offset, len(line))

    def close(self) -> None:
        """Close the segment that is being written; a later append starts a new one."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def segments(self) -> list[Path]:
        """The segment files, oldest first."""
        return sorted(path for path in self.folder.glob("*.jsonl") if path.stem.isdigit())

    def __iter__(self) -> Iterator[Rollout]:
        return self.read()

    def read(self, *, verify: bool = False) -> Iterator[Rollout]:
        """All rollouts in the order they were recorded.

        Args:
            verify: also check every record's hash.

        Raises:
            RunFolderError: a damaged record that is not the last of its segment; names the file and the line. A
                damaged last one, which a crash leaves, is skipped with a logged warning.
        """
        for segment in self.segments():
            for _, rollout in self.scan(segment.name, verify=verify):
                yield rollout

    def scan(self, segment: str, *, start: int = 0, verify: bool = False) -> Iterator[tuple[Location, Rollout]]:
        """The records of one segment from a byte offset on, with their places. Raises as `read`."""
        path = self.folder / segment
        with disk_errors(f"read {path}"), path.open("rb") as file:
            file.seek(start)
            offset = start
            for line in file:
                try:
                    rollout = record.decode(line, verify=verify)
                except record.DamagedRecord as damage:
                    if file.read(1):
                        raise RunFolderError(_damaged(path, offset, damage)) from None
                    logger.warning("%s: skipped a torn last record at byte %d: %s", path, offset, damage)
                    return
                yield Location(segment, offset, len(line)), rollout
                offset += len(line)

    def get(self, location: Location) -> Rollout:
        """The rollout at a place, its hash checked. Raises RunFolderError where it is gone or damaged."""
        path = self.folder / location.segment
        with disk_errors(f"read {path}"), path.open("rb") as file:
            file.seek(location.offset)
            line = file.read(location.length)
        try:
            return record.decode(line, verify=True)
        except record.DamagedRecord as damage:
            raise RunFolderError(_damaged(path, location.offset, damage)) from None

    def _segment(self) -> LineFile:
        if self._file is not None and self._file.size >= self._segment_bytes:
            self.close()
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            newest = max((int(path.stem) for path in self.segments()), default=0)
            self._file = LineFile(self.folder / f"{newest + 1:06d}.jsonl", exclusive=True)
        return self._file


def _damaged(path: Path, offset: int, damage: Exception) -> str:
    with path.open("rb") as file:
        number = file.read(offset).count(b"\n") + 1
    return (
        f"{path}, line {number} (byte {offset}) is damaged: {damage}; the records before it are whole: restore the "
        f"file from a copy, or delete that line"
    )
