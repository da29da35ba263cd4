"""Call author code, sync or async, with the arguments it asks for by name.

Synchronous functions run in daemon threads: one that blocks doesn't stop the event loop, and one that hangs doesn't
stop the process from exiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

INJECTED = ("ctx", "task", "rollout", "group", "models", "state", "sandbox", "random")
"""Parameter names that tools, scorers, stop conditions and demonstrators may ask for."""


IDLE_S = 10.0
"""After which a thread without work ends."""


class DaemonThreads(Executor):
    """A thread pool that grows whenever no thread is idle, and never holds up the interpreter's exit."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._free = 0
        """Threads that wait and have not been promised any of the queued work."""
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            grow = self._free == 0
            if not grow:
                self._free -= 1
        self._work.put((future, lambda: fn(*args, **kwargs)))
        if grow:
            threading.Thread(target=self._serve, name="ludus-author-code", daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            try:
                _carry_out(*self._work.get(timeout=IDLE_S))
            except queue.Empty:
                with self._lock:
                    if self._free > 0:
                        self._free -= 1
                        return
                continue  # all who wait are promised work, which is about to come
            with self._lock:
                self._free += 1


def _carry_out(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits, SystemExit included
        future.set_exception(error)
    else:
        future.set_result(result)


THREADS = DaemonThreads()


async def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function wherever it belongs: awaited if async, in a thread if not.

    What would end the run, or look as if the run were ending, comes out as RuntimeError: SystemExit, KeyboardInterrupt
    in a thread, and a CancelledError that nobody out here asked for.
    """
    try:
        if inspect.iscoroutinefunction(fn):
            return await fn(*args, **kwargs)
        result = await asyncio.get_running_loop().run_in_executor(
            THREADS, contextvars.copy_context().run, _contain, fn, args, kwargs
        )
        return await result if inspect.isawaitable(result) else result
    except SystemExit as error:
        raise RuntimeError(f"{_name(fn)} called sys.exit({error.code!r})") from None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError(f"{_name(fn)} was cancelled by something inside it") from error


def _contain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except (StopIteration, KeyboardInterrupt) as error:  # a Future can't carry the one, and the loop dies of the other
        raise RuntimeError(f"{_name(fn)} raised {type(error).__name__}") from error


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", repr(fn))


def wanted(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The injectable parameters that a function asks for, in order."""
    return _wanted(getattr(fn, "__func__", fn))


@functools.lru_cache(maxsize=4096)
def _wanted(fn: Callable[..., Any]) -> tuple[str, ...]:
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
