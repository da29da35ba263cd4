"""Work in a process of its own, which is confined first: for whoever is not confined itself."""

from __future__ import annotations

import os
from collections.abc import Callable

DONE, FAILED = b"+", b"-"
CHUNK = 1 << 16


def apart(work: Callable[[], bytes], confine: Callable[[], None]) -> bytes:
    """What the work returns. Raises OSError, with the text of whatever it raised."""
    end, start = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(work, confine, start)
    os.close(start)
    answer = bytearray()
    while part := os.read(end, CHUNK):
        answer += part
    os.close(end)
    os.waitpid(pid, 0)
    if answer[:1] != DONE:
        raise OSError(answer[1:].decode(errors="replace") or "the process that was to do it was killed")
    return bytes(answer[1:])


def _child(work: Callable[[], bytes], confine: Callable[[], None], start: int) -> None:
    try:
        confine()
        answer = DONE + work()
    except BaseException as error:  # noqa: BLE001 - it is told, and a fork must never return
        answer = FAILED + (getattr(error, "strerror", None) or str(error) or type(error).__name__).encode()
    left = memoryview(answer)
    try:
        while left:
            left = left[os.write(start, left) :]
    finally:
        os._exit(0)
