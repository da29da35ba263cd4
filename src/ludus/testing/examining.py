"""Examine an environment in a process of its own, which is ended where it hangs: there is always a verdict.

Environments that no other process can build, and those with models that are objects, are examined in this one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ludus.authoring.environment import Environment
from ludus.errors import LudusError, UsageError
from ludus.rollouts import frames
from ludus.testing.audit.verdict import NOTHING, Audit
from ludus.testing.env_suite import CHECK_RETURNS
from ludus.testing.examiner import Audited, Checked, FromExaminer, Order, Refused, Told
from ludus.testing.finding import Finding
from ludus.testing.hanging import silence

SILENT_S = 60.0
"""Without a sign of life, after which a process is taken to hang."""
DUMP_S = 1.0
"""For a process that hangs to write where."""


async def audit_elsewhere(
    env: Environment,
    *,
    num_tasks: int = 20,
    tried: int | None = None,
    tell: Callable[[str], object] = lambda text: None,
    **nobody: None,
) -> Audit:
    """What `audit_environment` does, in another process. `nobody` are models that were not named."""
    order = Order(env.describe(), num_tasks, audit=True, tried=tried)
    audit = await Examining(order, tell).run()
    assert audit is not None  # it was ordered
    return audit


@dataclass
class Examining:
    """One examination, seen from outside.

    Args:
        tell: told what is played.
        checked: told what the checks found, as soon as they are done.
        silent_s: without a sign of life, after which the process is ended.
    """

    order: Order
    tell: Callable[[str], object] = lambda text: None
    checked: Callable[[list[Finding]], object] = lambda findings: None
    silent_s: float = SILENT_S
    _told: str = ""
    _checks: bool = False
    """Whether their findings are still to come."""

    async def run(self) -> Audit | None:
        """The audit; None where the order has none. Raises LudusError where the order can't be carried out."""
        self._checks = self.order.checks
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as traces:
            try:
                with theirs:
                    process = await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "ludus.testing.examiner", str(theirs.fileno()), str(traces.fileno()),
                        pass_fds=[theirs.fileno(), traces.fileno()], stdin=asyncio.subprocess.DEVNULL,
                        start_new_session=True,
                    )  # fmt: skip
                reader, writer = await asyncio.open_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
            try:
                frames.send(writer, self.order)
                return await self._follow(process, reader, traces)
            finally:
                writer.close()
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    async def _follow(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, traces: IO[bytes]
    ) -> Audit | None:
        while True:
            try:
                async with asyncio.timeout(self.silent_s):
                    frame = await frames.receive(reader, FromExaminer)
            except TimeoutError:
                return self._broken(silence(self.silent_s, await _dump(process, traces)))
            match frame:
                case None:
                    status = await process.wait()
                    return self._broken(f"the environment ended the process that it ran in (exit status {status})")
                case Told(text):
                    self._told = text
                    self.tell(text)
                case Checked(findings):
                    self._checks = False
                    self.checked(findings)
                case Refused(error, usage):
                    raise (UsageError if usage else LudusError)(error)
                case Audited(audit):
                    await process.wait()
                    return audit

    def _broken(self, why: str) -> Audit | None:
        """What there is to say when nothing more will come."""
        what = self._told or NOTHING
        if self._checks:
            self.checked([Finding(CHECK_RETURNS, False, f"{what}: {why}")])
        if not self.order.audit:
            return None
        notes = ["nothing else was tried: the process in which it ran is gone"]
        return Audit(self.order.environment.id, 1.0, [], [], {what: why}, notes)


async def _dump(process: asyncio.subprocess.Process, traces: IO[bytes]) -> str:
    """Where a process is."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)
    await asyncio.sleep(DUMP_S)
    traces.seek(0)
    return traces.read().decode(errors="replace")
