"""Files of a sandbox, read and written from within it: a link that leads out of it leads nowhere here."""

# System calls by their own names: these processes are forked often, and are small.
# ruff: noqa: PTH118
from __future__ import annotations

import json
import os
import stat
from pathlib import Path


def read(path: str, offset: int, count: int) -> bytes:
    """A part of a regular file. Raises OSError for everything that is none, links included."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(fd)
        return os.pread(fd, count, offset)
    finally:
        os.close(fd)


def write(path: str, offset: int, data: bytes, mode: int | None) -> bytes:
    """Write a part of a file, whose folders are made; offset 0 begins it anew. Nothing comes back. Raises OSError."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        _check_regular(fd)
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
    return b""


def listing(path: str, most: int) -> bytes:
    """What is at a path: "file", "folder" or "other", which links are too; a space; and JSON.

    That is the regular files below a folder as [name, size], in order; links are not followed.

    Raises:
        OSError: nothing is there, more files than allowed, or folders too deep to be reached.
    """
    mode = os.lstat(path).st_mode
    if not stat.S_ISDIR(mode):
        return (b"file" if stat.S_ISREG(mode) else b"other") + b" []"
    found: list[tuple[str, int]] = []
    folders = [""]
    while folders:
        name = folders.pop()
        try:
            with os.scandir(os.path.join(path, name)) as entries:
                for entry in entries:
                    inner = os.path.join(name, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(inner)
                    elif entry.is_file(follow_symlinks=False):
                        found.append((inner, entry.stat(follow_symlinks=False).st_size))
                    if max(len(found), len(folders)) > most:
                        raise OSError(7, f"more than {most} files or folders")
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if not name:
                raise  # others have gone since, or are closed to everybody
    return b"folder " + json.dumps(sorted(found)).encode()


def _check_regular(fd: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_dev == os.stat("/proc").st_dev:
        raise OSError(22, "not a regular file")
