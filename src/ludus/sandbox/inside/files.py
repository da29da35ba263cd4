"""Files of a sandbox, read and written from within it: a link that leads out of it leads nowhere here."""

# System calls by their own names: these processes are forked often, and are small.
# ruff: noqa: PTH116, PTH118
from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

from . import linux

GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES}
"""Of a folder that code in the sandbox has taken away meanwhile, made a link, or closed to everybody."""


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
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return b"folder " + json.dumps(sorted(_files_below(top, most))).encode()
    finally:
        os.close(top)


def _files_below(top: int, most: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    folders = ["."]
    while folders:
        folder = folders.pop()
        try:
            fd = linux.open_below(top, folder)
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.path.normpath(os.path.join(folder, entry.name))
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        found.append((name, _size(entry)))
                    if max(len(found), len(folders)) > most:
                        raise OSError(errno.E2BIG, f"more than {most} files or folders")
        finally:
            os.close(fd)
    return found


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _check_regular(fd: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_dev == os.stat("/proc").st_dev:
        raise OSError(errno.EINVAL, "not a regular file")
