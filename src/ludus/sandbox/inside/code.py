"""Python code in a fork of a warm interpreter: as a program of its own, or piece after piece as at a prompt."""

from __future__ import annotations

import ast
import atexit
import contextlib
import io
import linecache
import sys
import threading
import traceback
import types
from collections.abc import Callable
from functools import cache

_out_of_sight: list[types.ModuleType] = []
"""To take them apart would copy the pages that they are on, which this process shares with many others."""


def run_program(source: str) -> int:
    """Run code as `python file.py` would, to its exit status."""
    status, _ = _execute(source, "<program>", _fresh_main(), echo=False)
    return _end(status)


def serve_session(receive: Callable[[], bytes | None], answer: Callable[[int], None]) -> int:
    """Run pieces of code in one namespace until one of them exits.

    Args:
        receive: the next piece; None ends the session.
        answer: takes the status of each, 1 if it raised.

    Returns:
        The exit status that the last piece asked for.
    """
    names = _fresh_main()
    count = 0
    while (source := receive()) is not None:
        count += 1
        status, exited = _execute(source.decode(errors="replace"), f"<python {count}>", names, echo=True)
        if exited:
            return _end(status)
        _flush()
        answer(status)
    return 0


def open_streams() -> None:
    """Python's own streams over descriptors 0, 1 and 2, which have been replaced since it started."""
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), "utf-8", "replace")
    sys.stdout, sys.stderr = _writer(1), _writer(2)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


def _writer(fd: int) -> io.TextIOWrapper:
    # by lines, so that code that is killed has said what it said
    return io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True)


@cache
def own_modules() -> list[str]:
    """Names of this package's modules; all have to be loaded when this is first asked."""
    return [name for name in sys.modules if name.partition(".")[0] == __name__.partition(".")[0]]


def _fresh_main() -> dict[str, object]:
    """The names of a new `__main__` module; this package's own modules are no longer found."""
    _out_of_sight.extend(sys.modules.pop(name) for name in own_modules())
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv, sys.path[:0] = [""], [""]
    vars(module)["__builtins__"] = __builtins__
    return vars(module)


def _execute(source: str, name: str, names: dict[str, object], echo: bool) -> tuple[int, bool]:
    """Run code in a namespace.

    Args:
        source: Python.
        name: what tracebacks call it.
        names: its globals.
        echo: print the value of an expression at the end, as a prompt does.

    Returns:
        The status that a program would exit with, and whether it asked to exit.
    """
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # lines for tracebacks
    try:
        tree = ast.parse(source, name)
        last = tree.body.pop() if echo and tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), names)
        if last is not None:
            exec(compile(ast.Interactive([last]), name, "single"), names)
    except SystemExit as request:
        return _status(request.code), True
    except BaseException as error:  # noqa: BLE001 - whatever the code raises is its own, and is shown as Python does
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        with contextlib.suppress(BaseException):
            traceback.print_exception(type(error), error, None if isinstance(error, SyntaxError) else inner)
        return 1, False
    return 0, False


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with contextlib.suppress(BaseException):
        sys.stderr.write(f"{code}\n")
    return 1


def _end(status: int) -> int:
    """What an interpreter does before it exits: threads end, exit handlers run, streams are written out."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    _flush()
    return status


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
