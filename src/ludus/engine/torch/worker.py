"""Worker: the one thread that touches the model: training and sampling never overlap, the event loop never waits.

Posted functions run in order, before the next iteration of the sampler. Each PyTorch call gives up the interpreter
lock, so a busy event loop runs ahead of this thread: requests then pile up into larger batches, which is welcome.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ludus.errors import UsageError

T = TypeVar("T")
CLOSED = "the engine is closed; make a new one"


class Worker:
    """A daemon thread.

    Args:
        start: runs on the thread first.
        step: one iteration of work.
        ready: whether there is a step to do; asked after every posted function and step.
        crashed: told of an exception that `step` or a posted function let through; the thread goes on.
    """

    def __init__(
        self,
        start: Callable[[], object],
        step: Callable[[], object],
        ready: Callable[[], bool],
        crashed: Callable[[Exception], object],
    ) -> None:
        self._step, self._ready, self._crashed = step, ready, crashed
        self._posted: deque[Callable[[], object]] = deque([start])
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="ludus-torch-engine", daemon=True)
        self._thread.start()

    def post(self, function: Callable[[], object]) -> bool:
        """Run a function on the thread, soon, after all that were posted before. False, and nothing, once closed."""
        with self._wake:
            if not self._closed:
                self._posted.append(function)
                self._wake.notify()
            return not self._closed

    async def run(self, function: Callable[[], T]) -> T:
        """The function's result, computed on the thread. Cancelled before it has started, it never runs.

        Raises:
            UsageError: the worker is closed.
        """
        future: Future[T] = Future()

        def compute() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 (re-raised where it is awaited)
                future.set_exception(error)

        if not self.post(compute):
            raise UsageError(CLOSED)
        return await asyncio.wrap_future(future)

    def close(self, last: Callable[[], object]) -> None:
        """Run what was posted, then `last`, then end the thread. Waits for it. A second call does nothing."""
        with self._wake:
            if not self._closed:
                self._posted.append(last)
                self._closed = True
                self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            try:
                if self._posted:
                    self._posted.popleft()()
                elif self._ready() and not self._closed:
                    self._step()
                else:
                    with self._wake:
                        if self._closed and not self._posted:
                            return
                        while not self._posted and not self._closed:
                            self._wake.wait()
            except Exception as error:  # noqa: BLE001 (handed to everyone who waits)
                self._crashed(error)
