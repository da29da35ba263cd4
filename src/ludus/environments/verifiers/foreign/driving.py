"""Whose code runs right now: written to shared memory at every step of every task, so that it can be read when the
process has died of it, or hangs in it."""

from __future__ import annotations

import asyncio
import itertools
import mmap
import struct
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

JOB: ContextVar[int] = ContextVar("job", default=0)
"""The number of the request that a task works for; 0 for nobody's. Tasks that it starts inherit it."""
STEP = struct.Struct("<qq")
"""The job whose step it is, 0 for nobody's; and which step, of all that begin in this process."""


class Driven(Coroutine[Any, Any, Any]):
    """A coroutine that leaves its job's number behind whenever it runs, and can't end the loop by `sys.exit`."""

    def __init__(self, inner: Coroutine[Any, Any, Any], job: int, watch: Watch) -> None:
        self._inner, self._job, self._watch = inner, job, watch

    def _step(self, step: Any, *args: Any) -> Any:
        self._watch.note(self._job)
        try:
            return step(*args)
        except SystemExit as error:
            raise RuntimeError(f"it called sys.exit({error.code!r})") from error
        except KeyboardInterrupt as error:
            raise RuntimeError("it raised KeyboardInterrupt") from error
        finally:
            self._watch.note(0)

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *args: Any) -> Any:
        return self._step(self._inner.throw, *args)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # cr_frame and its like, which libraries look at


class Watch:
    """A task factory, for `loop.set_task_factory`.

    Args:
        memory: shared with who watches.
        place: where in it.
        steps: counts them, in all threads.
    """

    def __init__(self, memory: mmap.mmap, place: int = 0, steps: itertools.count[int] | None = None) -> None:
        self._memory, self._place, self._steps = memory, place, steps or itertools.count(1)

    def elsewhere(self) -> Watch:
        """One for the loop of another thread."""
        return Watch(self._memory, self._place + STEP.size, self._steps)

    def note(self, job: int) -> None:
        """A step begins; or it has ended, and it is nobody's turn."""
        STEP.pack_into(self._memory, self._place, job, next(self._steps))

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """A task."""
        context = kwargs.get("context")
        job = JOB.get() if context is None else context.get(JOB, 0)
        driven = Driven(coroutine, job, self) if job else coroutine
        return asyncio.Task(driven, loop=loop, **kwargs)
