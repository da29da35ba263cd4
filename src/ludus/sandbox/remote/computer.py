"""A computer elsewhere that runs shell scripts: what an adapter fills in, and how it is asked."""

from __future__ import annotations

import asyncio
import itertools
import logging
import posixpath
import secrets
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, ClassVar

from ludus.errors import SandboxFailed
from ludus.sandbox.remote import files, scripts
from ludus.sandbox.remote.calls import TRIES, patiently
from ludus.sandbox.spec import SandboxSpec

log = logging.getLogger(__name__)

HOME = "/work"
STOPPING_S = 30.0
MOST_SCRIPT = 60_000
"""Characters; what is longer is put into a file first."""


class Computer(ABC):
    """Made, asked and removed as a subclass says.

    All that it is asked is a script. What it prints comes from a machine that runs a model's code: it is bounded, parsed
    with care, and can only hurt its own sandbox.
    """

    tier: ClassVar[str]
    unlimited: ClassVar[str]
    """Fields of `Limits` that nothing keeps there, for a warning."""
    alone: ClassVar[bool] = True
    """Whether its process namespace has nothing in it but one first process and what we start."""

    def __init__(self, spec: SandboxSpec) -> None:
        self.spec, self.home = spec, HOME
        self.name = f"ludus-{secrets.token_hex(8)}"
        self._folder = f"/tmp/.{self.name}"
        self._numbers = itertools.count()
        self._waiting: set[asyncio.Future[bytes]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._also: set[asyncio.Task[None]] = set()

    # --- what a subclass says -----------------------------------------------------------------------------------

    @abstractmethod
    async def _start(self) -> None:
        """Make the computer. What was made is removed by `_remove`, whether this succeeds or not."""

    @abstractmethod
    async def _shell(self, script: str) -> bytes:
        """Run a script with /bin/sh, as a user who may write to its folders; what it prints, however it ends."""

    @abstractmethod
    async def _remove(self) -> None:
        """Remove the computer, whatever became of it; that it is not there is no error."""

    @classmethod
    @abstractmethod
    def transient(cls, error: Exception) -> bool:
        """Whether an error of its client may pass."""

    async def _put(self, path: str, data: bytes) -> None:
        """Make a file that is too long to go along in a script."""
        await self._shell(f"rm -f {path}")
        for start in range(0, len(data), files.MOST_INLINE):
            script = files.append(data[start : start + files.MOST_INLINE], path)
            files.words_of(await self._shell(script), f"write {path}")

    async def _end_processes(self) -> None:
        """Kill all processes but those that the computer itself needs."""
        await self._ask(scripts.END_ALL if self.alone else scripts.end_others(self._folder))

    # --- its end ---------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """End it: returns once it is removed, or can't be, which is logged. May be called again."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name="end of a sandbox")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        for waiting in self._waiting:
            waiting.cancel()
        for task in self._also:
            task.cancel()
        await asyncio.gather(*self._also, return_exceptions=True)
        try:
            await patiently("remove the sandbox", self._remove, self.transient)
        except SandboxFailed as error:
            log.error("the sandbox %s at %s goes on until its time is over: %s", self.name, self.tier, error)

    @property
    def over(self) -> bool:
        """Whether it is being removed, or has been."""
        return self._ending is not None

    def also(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside everything else, until the end of the sandbox at most."""
        task = asyncio.create_task(work, name="work for a sandbox")
        self._also.add(task)
        task.add_done_callback(self._also.discard)

    # --- asking -------------------------------------------------------------------------------------------------

    async def asked(self, script: str, what: str) -> list[str]:
        """What a script said after `ok`, line by line. It may be run again. Raises SandboxFileError, SandboxFailed."""
        return files.words_of(await self._ask(script, TRIES), what)

    async def _ask(self, script: str, tries: int = 1) -> bytes:
        """What a script printed; the end of the sandbox ends the wait. Raises SandboxFailed."""
        if self._ending is not None:
            raise SandboxFailed("the sandbox was killed")
        work = asyncio.ensure_future(self._run(script, tries))
        self._waiting.add(work)
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
            self._waiting.discard(work)
        if work.cancelled():
            raise SandboxFailed("the sandbox was killed")
        return work.result()

    async def _run(self, script: str, tries: int) -> bytes:
        if len(script) > MOST_SCRIPT:
            place = self.new_place()
            await self._put_patiently(place, script.encode(errors="surrogateescape"))
            script = f"sh {place}; rm -f {place}"
        return await patiently("run a script in the sandbox", lambda: self._shell(script), self.transient, tries)

    async def _put_patiently(self, place: str, data: bytes) -> None:
        await patiently(f"send {len(data)} bytes to the sandbox", lambda: self._put(place, data), self.transient)

    async def given(self, place: str, data: bytes) -> str:
        """A script that makes a file and its folder; what is long is there already."""
        folder = posixpath.dirname(place)
        if len(data) <= files.MOST_INLINE:
            return f"mkdir -p {folder}; {files.given(data, place)}"
        await self.asked(f"mkdir -p {folder}; echo ok", "make a folder")
        await self._put_patiently(place, data)
        return ""

    def new_place(self) -> str:
        return f"{self._folder}/{next(self._numbers)}"
