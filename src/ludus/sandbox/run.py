"""Sandboxes in one line: a context manager, and plain functions for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from ludus.protocols import Sandbox, SandboxResult
from ludus.sandbox.create import create
from ludus.sandbox.local import LocalSandbox
from ludus.sandbox.spec import Limits, SandboxSpec
from ludus.sandbox.tiers import Capabilities, probe

T = TypeVar("T")


@asynccontextmanager
async def open_sandbox(spec: SandboxSpec | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox that is killed at the end of the block. Raises SandboxUnavailable, SandboxFailed, MissingExtra."""
    sandbox = await create(spec)
    try:
        yield sandbox
    finally:
        await sandbox.kill()


def run(
    code: str,
    timeout_s: float = 10,
    *,
    limits: Limits | None = None,
    stdin: str | bytes = "",
    files: Mapping[str, str | bytes] | None = None,
    tier: str = "auto",
) -> SandboxResult:
    """Run Python code in a sandbox of its own, which is gone afterwards.

    Args:
        code: a program.
        timeout_s: it is killed after so many seconds; the result then says `timed_out`.
        limits: what it may use; those of `Limits()` by default.
        stdin: what it reads.
        files: contents by path, there before it runs.
        tier: how it is contained: one of this machine's own ways, as in `SandboxSpec`.

    Raises:
        SandboxUnavailable: this machine can't contain it.
        SandboxFailed: the sandbox broke.
    """
    spec = SandboxSpec(limits=limits or Limits(), files=files or {}, tier=tier)

    async def whole() -> SandboxResult:
        async with await LocalSandbox.create(spec) as sandbox:
            return await sandbox.run(code, timeout_s=timeout_s, stdin=stdin)

    return _wait_for(whole)


def capabilities() -> Capabilities:
    """What sandboxes of this machine can do, found out by making one."""
    return _wait_for(probe)


def _wait_for(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of asynchronous work, also inside a running event loop, which can't be entered twice."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    outcome: list[T | BaseException] = []

    def elsewhere() -> None:
        try:
            outcome.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            outcome.append(error)

    thread = threading.Thread(target=copy_context().run, args=(elsewhere,), name="sandbox")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
