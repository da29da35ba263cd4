"""Lines of trace files, one at a time, however large the files are."""

from __future__ import annotations

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ludus.errors import FileProblem, UsageError

MOST_BYTES = 32 << 20
"""Of one line: a longer one is told of and skipped, so that memory stays flat."""

GZIP = b"\x1f\x8b"
"""How its files begin."""


def lines_of(paths: Sequence[Path]) -> Iterator[tuple[str, bytes | None]]:
    """Where each line that is not blank stands, such as "traces.jsonl:3", and the line; None for one that is too long.

    Files that are packed with gzip, whatever their names, are unpacked on the way.

    Raises:
        UsageError: there is no such file.
        FileProblem: a file that can't be read, or unpacked.
    """
    for path in paths:
        if not path.is_file():
            raise UsageError(f"no such file of traces: {path}")
        try:
            with _open(path) as file:
                yield from _lines(path.name, file)
        except (OSError, EOFError, zlib.error) as error:
            raise FileProblem(f"can't read {path}: {error}") from None


def _lines(name: str, file: IO[bytes]) -> Iterator[tuple[str, bytes | None]]:
    number = 0
    while line := file.readline(MOST_BYTES):
        number += 1
        where = f"{name}:{number}"
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield where, None
            continue
        line = line.removeprefix(BOM_UTF8) if number == 1 else line
        if line.strip():
            yield where, line


def _open(path: Path) -> IO[bytes]:
    file = path.open("rb")
    packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    if not packed:
        return file
    file.close()
    return gzip.open(path)  # type: ignore[return-value] # it reads bytes
