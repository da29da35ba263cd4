"""Call author code, sync or async, with the arguments it asks for by name.

Synchronous functions run in daemon threads: one that blocks doesn't stop the event loop, and one that hangs doesn't
stop the process from exiting.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

INJECTED = ("ctx", "task", "rollout", "group", "state", "sandbox", "random")
"""Parameter names that tools, scorers, stop conditions and demonstrators may ask for."""


class DaemonThreads(Executor):
    """A thread pool that grows whenever no thread is idle, and never holds up the interpreter's exit."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            grow = self._idle <= self._work.qsize()
        self._work.put((future, lambda: fn(*args, **kwargs)))
        if grow:
            threading.Thread(target=self._serve, name="ludus-author-code", daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                future, call = self._work.get(timeout=10)
            except queue.Empty:
                return
            finally:
                with self._lock:
                    self._idle -= 1
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits, SystemExit included
                future.set_exception(error)
            else:
                future.set_result(result)


THREADS = DaemonThreads()


async def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function wherever it belongs: awaited if async, in a thread if not.

    SystemExit and KeyboardInterrupt from author code come out as RuntimeError: a tool can't end the run.
    """
    try:
        if inspect.iscoroutinefunction(fn):
            return await fn(*args, **kwargs)
        result = await asyncio.get_running_loop().run_in_executor(THREADS, lambda: _contain(fn, args, kwargs))
        return await result if inspect.isawaitable(result) else result
    except SystemExit as error:
        raise RuntimeError(f"{_name(fn)} called sys.exit({error.code!r})") from None


def _contain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:  # a Future can't carry it
        raise RuntimeError(f"{_name(fn)} raised StopIteration") from error


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", repr(fn))


def wanted(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The injectable parameters that a function asks for, in order."""
    return tuple(name for name in inspect.signature(fn).parameters if name in INJECTED)


def inject(fn: Callable[..., Any], available: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a function asks for by name.

    Raises:
        TypeError: it asks for one that does not exist here (e.g. `group` in a tool).
    """
    names = wanted(fn)
    missing = [name for name in names if name not in available]
    if missing:
        raise TypeError(f"{_name(fn)} asks for {', '.join(missing)}, but here only {', '.join(available)} exist")
    return {name: available[name] for name in names}
