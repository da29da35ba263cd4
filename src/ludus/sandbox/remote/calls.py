"""Calls of other people's clients: in threads, again after a passing fault, a bounded number of starts at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from ludus.errors import LudusError, SandboxFailed
from ludus.redaction import SECRETS

T = TypeVar("T")

STARTS_AT_A_TIME = 16
"""Container engines answer more slowly, and then not at all, when dozens are asked for at once."""
TRIES = 4
FIRST_WAIT_S = 0.5
MOST_SAID = 400

_starting: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = WeakKeyDictionary()


async def in_thread(work: Callable[[], T]) -> T:
    """The result of a blocking call, in a thread of its own that nobody has to wait for at exit.

    Hundreds of commands run at once, each for minutes; the event loop's pool has a handful of threads for everybody.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - raised again by whoever waits
            error = RuntimeError(f"stopped: {raised!r}") if isinstance(raised, StopIteration) else raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="sandbox call", daemon=True).start()
    return await future


async def patiently(
    what: str, call: Callable[[], Awaitable[T]], transient: Callable[[Exception], bool], tries: int = TRIES
) -> T:
    """The result of a call that may be made again.

    Args:
        what: it does, for the error.
        call: makes the call.
        transient: whether another try may help.
        tries: at most so many calls; 1 for what can't be repeated.

    Raises:
        SandboxFailed: it failed, in one line without secrets.
    """
    for number in range(1, tries + 1):
        try:
            return await call()
        except LudusError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a client raises is a failure of what it stands for
            if number == tries or not transient(error):
                raise SandboxFailed(f"can't {what}: {said(error)}") from None
        await asyncio.sleep(FIRST_WAIT_S * 2 ** (number - 1))
    raise AssertionError("tries is at least 1")


def said(error: BaseException) -> str:
    """An error in one short line, without secrets."""
    text = " ".join(str(error).split()) or type(error).__name__
    return SECRETS.hide(text)[:MOST_SAID]


@asynccontextmanager
async def turn_to_start(kind: str) -> AsyncIterator[None]:
    """Wait until fewer than `STARTS_AT_A_TIME` sandboxes of a kind are being started by this event loop."""
    turns = _starting.setdefault(asyncio.get_running_loop(), {})
    async with turns.setdefault(kind, asyncio.Semaphore(STARTS_AT_A_TIME)):
        yield


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Like `await`, but whoever is cancelled meanwhile is so only when the work is done: it leaves nothing half made."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is told that it was not
        raise
