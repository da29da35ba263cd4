"""Folders between the host and a remote sandbox, as tar archives that are made and read here, member by member.

An archive from a sandbox is what its code made of it. Only regular files are taken from it, under names that stay below
the folder, into files that are made here; nothing is ever extracted by name or through a link.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from ludus.errors import FileProblem, SandboxFileError
from ludus.sandbox.host_files import make, mode_of

MOST_FILES = 10_000
MOST_HEADS = 3 * 512 * MOST_FILES
"""Bytes that an archive may have beside the content of its files: heads, long names, padding."""


def packed(folder: Path) -> bytes:
    """An archive of the regular files below a folder; links are left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode = path.stat().st_size, mode_of(path)
            with path.open("rb") as file:
                tar.addfile(member, file)
    return buffer.getvalue()


def one_file(name: str, data: bytes) -> bytes:
    """An archive of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpack(data: bytes, target: Path, path: str, max_bytes: int) -> None:
    """Make a folder of the regular files in an archive from a sandbox.

    Args:
        data: the archive.
        target: the new folder.
        path: what it is called in the sandbox, for errors.
        max_bytes: of all files together.

    Raises:
        SandboxFileError: it is no archive, is larger, or has names that lead elsewhere.
        FileProblem: the folder can't be made.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = _checked([member for member in tar if member.isreg() or member.islnk()], path, max_bytes)
            target.mkdir(parents=True)
            for name, member in members:
                content = tar.extractfile(member)  # a second name of a file is looked up in the archive itself
                if content is not None:
                    make(target / name, content.read())
    except (tarfile.TarError, KeyError, EOFError, ValueError, RecursionError):
        raise SandboxFileError(f"can't read {path} in the sandbox: it sent something that is no archive") from None
    except OSError as error:
        if isinstance(error, FileProblem | SandboxFileError):
            raise
        raise FileProblem(f"download: can't make {target}: {error.strerror}") from error


def _checked(members: list[tarfile.TarInfo], path: str, max_bytes: int) -> list[tuple[str, tarfile.TarInfo]]:
    if sum(member.size for member in members) > max_bytes:
        raise SandboxFileError(f"{path} is larger than the {max_bytes} bytes that may be read of it")
    if len(members) > MOST_FILES:
        raise SandboxFileError(f"{path} has more than {MOST_FILES} files")
    named = [(member.name.removeprefix("./"), member) for member in members]
    for name, _ in named:
        if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise SandboxFileError(f"the sandbox listed {name!r}, which is no name of a file below the folder")
    return named
