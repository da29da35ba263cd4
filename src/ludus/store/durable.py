"""Writes that are whole or absent: appended lines, replaced files, and folders that reach the disk before a rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ludus.errors import LudusError, RunFolderError


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn the operating system's errors (disk full, read-only, I/O error) into RunFolderError: "can't {what}: ..."."""
    try:
        yield
    except LudusError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(f"can't {what}: {reason}; check the disk's space and permissions") from error


class LineFile:
    """A file of whole lines, open for appending. A line that can't be written whole leaves nothing behind.

    Args:
        path: made if it does not exist; a torn last line (from a crash) is cut off.
        exclusive: refuse a file that exists (FileExistsError).
    """

    def __init__(self, path: Path, *, exclusive: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | (os.O_EXCL if exclusive else 0)
        self._fd = os.open(path, flags, 0o644)
        self.size = whole_lines_size(path)
        os.ftruncate(self._fd, self.size)

    def append(self, line: bytes) -> int:
        """Write a line (newline included) with one write; returns its byte offset.

        Raises:
            OSError: it could not be written whole; what was written of it has been cut off again.
        """
        offset = self.size
        try:
            written = os.write(self._fd, line)
            while written < len(line):  # a full disk takes a part first, and refuses the rest
                written += os.write(self._fd, line[written:])
        except OSError:
            os.ftruncate(self._fd, offset)
            raise
        self.size = offset + len(line)
        return offset

    def close(self) -> None:
        os.close(self._fd)


def whole_lines_size(path: Path) -> int:
    """Bytes up to and including the last newline."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content: a reader, or a crash, sees the old or the new, never half. Raises OSError.

    What is no file, such as a pipe or /dev/stdout, is written to and stays what it is.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.write_bytes(data)
        fsync(aside)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    fsync(path.parent)


@contextmanager
def or_nothing(aside: Path) -> Iterator[None]:
    """Where this raises, the folder that is being written aside is gone, and the one it was to replace is back."""
    try:
        yield
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        restore_folders(aside.parent)
        raise


def replace_folder(path: Path, aside: Path) -> None:
    """Give a folder that was written aside, and has reached the disk, its name. Raises OSError.

    One that has the name already is `.NAME.before` until then; after a crash `restore_folders` makes up for it.
    """
    before = path.with_name(f".{path.name}.before")
    if path.exists():
        path.rename(before)
    aside.rename(path)
    fsync(path.parent)
    shutil.rmtree(before, ignore_errors=True)


def restore_folders(parent: Path) -> None:
    """Give folders back the names that no successor has come for. Only for who alone writes there. Raises OSError."""
    for before in parent.glob(".*.before"):
        path = parent / before.name.removeprefix(".").removesuffix(".before")
        if path.exists():
            shutil.rmtree(before)
        else:
            before.rename(path)


def fsync_tree(folder: Path) -> None:
    """Make a folder and all that is in it reach the disk."""
    for path in folder.rglob("*"):
        fsync(path)
    fsync(folder)


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's list of names, reach the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
