"""Folders between the host and a sandbox, file by file: there is no archive that could hold a surprise.

The sandbox's side does its own opening, within its own file tree. The host's side trusts no name that comes from there
and writes only to files that it makes itself, in a folder that it made itself.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ludus.errors import FileProblem, SandboxFileError

if TYPE_CHECKING:
    from ludus.sandbox.local import LocalSandbox


def checked_listing(data: bytes) -> list[tuple[str, int]]:
    """(name, size) pairs as a sandbox sent them. Raises SandboxFileError for names that lead out of their folder."""
    try:
        pairs = [(name, int(size)) for name, size in json.loads(data)]
    except (ValueError, TypeError, RecursionError):
        raise SandboxFileError("the sandbox sent something that is no list of files") from None
    for name, _ in pairs:
        parts = name.split("/") if isinstance(name, str) else []
        if not parts or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise SandboxFileError(f"the sandbox listed {name!r}, which is no name of a file below the folder")
    return pairs


async def upload(sandbox: LocalSandbox, source: Path, path: str) -> None:
    """Copy a file, or the regular files below a folder, into a sandbox. Raises FileProblem, SandboxFileError."""
    if source.is_symlink() or not source.exists():
        what = "a link" if source.is_symlink() else "not there"
        raise FileProblem(f"upload: expected a file or folder; {source} is {what}")
    if source.is_file():
        await sandbox.write(path, source.read_bytes(), mode=_mode(source))
        return
    for folder, _, names in os.walk(source):
        for name in sorted(names):
            file = Path(folder, name)
            if not file.is_symlink() and file.is_file():
                below = PurePosixPath(path, file.relative_to(source).as_posix())
                await sandbox.write(str(below), file.read_bytes(), mode=_mode(file))


async def download(sandbox: LocalSandbox, path: str, target: Path, folder: bool, most: int) -> None:
    """Copy a file or the files of a folder to a new place. Raises FileProblem, SandboxFileError."""
    if os.path.lexists(target):
        raise FileProblem(f"download: {target} exists already; name a place where nothing is yet")
    if not folder:
        _make(target, await sandbox.read(path, max_bytes=most))
        return
    files = await sandbox.list(path)
    try:
        target.mkdir(parents=True)
    except OSError as error:
        raise FileProblem(f"download: can't make {target}: {error.strerror}") from error
    for name, _ in files:
        data = await sandbox.read(f"{path}/{name}", max_bytes=most)
        most -= len(data)
        _make(target / name, data)


def _make(target: Path, data: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise FileProblem(f"download: can't make {target}: {error.strerror}") from error
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _mode(file: Path) -> int:
    return 0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644
