"""Ctrl-C and SIGTERM while a program runs: the first asks it to finish what it has begun, the second aborts it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from ludus.cli.output import note

ResultT = TypeVar("ResultT")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130


class Stopper:
    """Runs a coroutine that can be asked to stop early.

    Args:
        message: what is said at the first signal.
    """

    def __init__(self, message: str) -> None:
        self.asked = False
        self._message = message
        self._stop: Callable[[], object] = lambda: None

    def stops(self, stop: Callable[[], object]) -> None:
        """How to ask the program to stop; called at once if that has been asked already."""
        self._stop = stop
        if self.asked:
            stop()

    def run(self, program: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        """Run in a new event loop. Raises SystemExit where the program was aborted."""
        try:
            return asyncio.run(self._guarded(program))
        except asyncio.CancelledError:
            note("aborted")
            sys.exit(INTERRUPTED)

    async def _guarded(self, program: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # a coroutine runs in one
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signal, loop, task)
        try:
            return await program()
        finally:
            _let_go(loop)

    def _signal(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        if self.asked:
            _let_go(loop)  # a third one ends the process
            task.cancel()
            return
        self.asked = True
        note(f"\n{self._message}; again to abort")
        self._stop()


@contextmanager
def ends_in_order() -> Iterator[None]:
    """What stands in here cleans up on SIGTERM, as on Ctrl-C."""

    def end(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _let_go(loop: asyncio.AbstractEventLoop) -> None:
    for number in SIGNALS:
        loop.remove_signal_handler(number)
