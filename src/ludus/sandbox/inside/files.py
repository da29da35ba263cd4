"""Files of a sandbox, read and written from within it: a link that leads out of it leads nowhere here."""

# System calls by their own names: these processes are forked often, and are small.
# ruff: noqa: PTH118
from __future__ import annotations

import json
import os
import stat
from pathlib import Path


def read(path: str, offset: int, count: int) -> tuple[int, bytes]:
    """Size of a regular file and a part of it. Raises OSError for everything that is none, links included."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _regular(fd, path), os.pread(fd, count, offset)
    finally:
        os.close(fd)


def write(path: str, offset: int, data: bytes, mode: int | None) -> None:
    """Write a part of a file, whose folders are made; offset 0 begins it anew. Raises OSError."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        _regular(fd, path)
        if offset == 0:
            os.ftruncate(fd, 0)
        if mode is not None:
            os.fchmod(fd, mode)
        left = memoryview(data)
        while left:
            done = os.pwrite(fd, left, offset)
            left, offset = left[done:], offset + done
    finally:
        os.close(fd)


def kind(path: str) -> str:
    """ "file", "folder" or "other"; links are "other". Raises OSError where there is nothing."""
    mode = os.lstat(path).st_mode
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def listing(path: str, most: int) -> bytes:
    """JSON: the regular files below a folder as [name, size], in order; links are not followed. Raises OSError."""
    if kind(path) != "folder":
        return b"[]"
    found: list[tuple[str, int]] = []
    for folder, below, names in os.walk(path):
        below.sort()
        for name in sorted(names):
            full = os.path.join(folder, name)
            status = os.lstat(full)
            if stat.S_ISREG(status.st_mode):
                found.append((os.path.relpath(full, path), status.st_size))
            if len(found) > most:
                raise OSError(7, f"more than {most} files")
    return json.dumps(found).encode()


def _regular(fd: int, path: str) -> int:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(22, "not a regular file")
    return status.st_size
