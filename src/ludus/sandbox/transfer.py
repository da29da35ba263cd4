"""Folders between the host and a sandbox, file by file: there is no archive that could hold a surprise.

The sandbox's side does its own opening, within its own file tree. The host's side trusts no name that comes from there
and writes only to files that it makes itself, in a folder that it made itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ludus.errors import FileProblem, SandboxFileError
from ludus.sandbox.host_files import checked_source, checked_target, make, mode_of

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
    if checked_source(source).is_file():
        await sandbox.write(path, source.read_bytes(), mode=mode_of(source))
        return
    for folder, _, names in os.walk(source):
        for name in sorted(names):
            file = Path(folder, name)
            if not file.is_symlink() and file.is_file():
                below = PurePosixPath(path, file.relative_to(source).as_posix())
                await sandbox.write(str(below), file.read_bytes(), mode=mode_of(file))


async def download(sandbox: LocalSandbox, path: str, target: Path, folder: bool, most: int) -> None:
    """Copy a file or the files of a folder to a new place. Raises FileProblem, SandboxFileError."""
    checked_target(target)
    if not folder:
        make(target, await sandbox.read(path, max_bytes=most))
        return
    files = await sandbox.list(path)
    try:
        target.mkdir(parents=True)
    except OSError as error:
        raise FileProblem(f"download: can't make {target}: {error.strerror}") from error
    for name, _ in files:
        data = await sandbox.read(f"{path}/{name}", max_bytes=most)
        most -= len(data)
        make(target / name, data)
