"""Files of the host, on the way into a sandbox and out of it: no link is followed, and nothing is overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ludus.errors import FileProblem


def checked_source(path: Path) -> Path:
    """A file or folder of the host. Raises FileProblem."""
    if path.is_symlink() or not path.exists():
        what = "a link" if path.is_symlink() else "not there"
        raise FileProblem(f"upload: expected a file or folder; {path} is {what}")
    return path


def checked_target(path: Path) -> Path:
    """A place of the host where nothing is yet. Raises FileProblem."""
    if os.path.lexists(path):
        raise FileProblem(f"download: {path} exists already; name a place where nothing is yet")
    return path


def mode_of(path: Path) -> int:
    """Readable by everybody, and executable if it is so here."""
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


def make(target: Path, data: bytes) -> None:
    """Write a file that is not there yet. Raises FileProblem."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise FileProblem(f"download: can't make {target}: {error.strerror}") from error
    with os.fdopen(fd, "wb") as file:
        file.write(data)
