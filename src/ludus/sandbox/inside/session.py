"""A Python session that is spoken to through files: where there is no stream into a sandbox.

Its folder has a pipe `in`, whose lines are the folders of calls. Each of them has the file `code`, pipes `o` and `e` for
what the code prints, and a pipe `done` for how it ended. A session that exits says nothing there: whoever started it does.
"""

# System calls by their own names, and no imports but those of every Python.
# ruff: noqa: PTH123
from __future__ import annotations

import os
import signal

from . import code


def main(folder: str) -> None:
    """Serve calls until one of them ends the session, and exit as its code asks for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(f"{folder}/pid", "w") as file:
        file.write(f"{os.getpid()}\n")
    code.open_streams()
    calls: list[str] = []

    def receive() -> bytes:
        call = ""
        while not call:  # who wrote the last line may still be about to close the pipe, and says nothing more
            with open(f"{folder}/in") as requests:
                call = requests.readline().rstrip("\n")
        calls.append(call)
        for fd, name in ((1, "o"), (2, "e")):
            _lead(fd, f"{calls[-1]}/{name}")
        with open(f"{calls[-1]}/code", "rb") as file:
            return file.read()

    def answer(status: int) -> None:
        for fd in (1, 2):
            _lead(fd, os.devnull)
        with open(f"{calls[-1]}/done", "w") as file:
            file.write(f"ended {status}\n")

    os._exit(code.serve_session(receive, answer))


def _lead(fd: int, path: str) -> None:
    other = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(other, fd)
    os.close(other)
