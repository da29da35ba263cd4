"""Programs as plain function calls, from a script or a notebook's cell, whether or not an event loop runs there.

The program runs in a thread with a loop of its own; the caller's thread waits, and shows how far it is. Ctrl-C, or a
kernel that is interrupted, asks the program to finish what it has begun; once more aborts it.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from ludus.display.watch import Watcher

ResultT = TypeVar("ResultT")
TICK_S = 0.1
"""How long the waiting thread waits between two looks."""


class Blocking(Generic[ResultT]):
    """One program that is waited for.

    Args:
        program: what runs.
        watcher: shows progress.
    """

    def __init__(self, program: Callable[[], Coroutine[Any, Any, ResultT]], watcher: Watcher) -> None:
        self._program, self._watcher = program, watcher
        self._stop: Callable[[], object] = lambda: None
        self._asked = 0
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[ResultT] | None = None
        self._result: list[ResultT] = []
        self._error: BaseException | None = None

    def stops(self, stop: Callable[[], object]) -> None:
        """How to ask the program to stop; called at once if that has been asked already."""
        self._stop = stop
        if self._asked:
            stop()

    def run(self, interrupted: Callable[[ResultT], str]) -> ResultT:
        """Run the program to its end.

        Args:
            interrupted: what to say where the program was asked to stop, given what it came to.

        Raises:
            KeyboardInterrupt: it was asked to stop and has, or was aborted.
        """
        # in the caller's context: what the program prints belongs to the cell
        thread = threading.Thread(target=copy_context().run, args=(self._work,), name="ludus", daemon=True)
        with self._interrupts():
            thread.start()
            while not self._ended.wait(TICK_S):
                self._watcher.refresh()
        if isinstance(self._error, asyncio.CancelledError):
            raise KeyboardInterrupt("aborted")
        if self._error is not None:
            raise self._error
        if self._asked:
            raise KeyboardInterrupt(interrupted(self._result[0]))
        return self._result[0]

    def _work(self) -> None:
        try:
            self._result.append(asyncio.run(self._main()))
        except BaseException as error:  # noqa: BLE001 - raised again where it belongs
            self._error = error
        finally:
            self._ended.set()

    async def _main(self) -> ResultT:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        return await self._program()

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """SIGINT comes here: as an exception it would come anywhere. Only the main thread hears signals."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return
        signal.signal(signal.SIGINT, lambda *_: self._interrupt())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self) -> None:
        """The first asks, the second aborts, the third leaves the thread alone with it."""
        self._asked += 1
        if self._asked == 1:
            self._watcher.say("finishing what is running; interrupt again to abort")
            self._soon(lambda: self._stop())
        elif self._asked == 2:
            self._soon(lambda: self._task and self._task.cancel())
        else:
            raise KeyboardInterrupt("left running")

    def _soon(self, act: Callable[[], object]) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(act)
            except RuntimeError:  # it has just ended
                pass


def run_anywhere(program: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
    """The result of a program that is short and shows nothing on the way; beside a running loop, in a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(program())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(program())).result()
