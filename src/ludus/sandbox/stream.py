"""The stream to a sandbox's first process: numbered calls, and a task that hands answers to whoever waits.

What comes through it was written by the sandbox. It is bounded, parsed with care, and can only hurt its own sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from typing import Any, Self

from ludus.errors import ConfigError, SandboxFailed, SandboxUnavailable
from ludus.sandbox.host import Zygote
from ludus.sandbox.inside import frames
from ludus.sandbox.spec import Limits

log = logging.getLogger(__name__)

START_S = 60.0
END_S = 30.0
CHUNK = 1 << 16

Answer = tuple[dict[str, Any], bytes]


class Stream:
    """One living sandbox of a zygote; made by `open`."""

    def __init__(self, zygote: Zygote, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.zygote = zygote
        self._reader, self._writer = reader, writer
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, zygote: Zygote, limits: Limits) -> tuple[Self, dict[str, Any]]:
        """A new sandbox, and what it says first. Raises SandboxUnavailable, SandboxFailed."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                await zygote.ask(limits, theirs)
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise SandboxFailed(f"no sandbox could be asked for: {error}") from error
            raise
        stream = cls(zygote, reader, writer)
        try:
            return stream, await stream._begin()
        except BaseException:
            await stream.end()
            raise

    async def _begin(self) -> dict[str, Any]:
        try:
            words, _ = await asyncio.wait_for(self._receive(), START_S)
        except (EOFError, ConnectionError, TimeoutError, frames.BadFrame) as error:
            raise SandboxFailed(f"the sandbox ended before it was ready: {error or type(error).__name__}") from None
        if "failed" in words:
            raise SandboxUnavailable(f"sandboxes of the tier {self.zygote.tier!r} don't work here: {words['failed']}")
        self._reading = asyncio.create_task(self._read(), name="sandbox answers")
        return words

    async def call(self, do: str, words: dict[str, Any], data: bytes = b"") -> Answer:
        """One request and its answer; if nobody waits any longer, what it started is killed. Raises SandboxFailed."""
        if self._reading is None or self._reading.done() or self._ending is not None:
            raise self._over()
        number = next(self._ids)
        try:
            frame = frames.pack({"id": number, "do": do, **words}, data)
        except frames.BadFrame as error:
            raise ConfigError(f"{do}: too much at once for a sandbox, {error}; write a file instead") from None
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(frame)
            return await future
        except asyncio.CancelledError:
            self._writer.write(frames.pack({"id": next(self._ids), "do": "stop", "call": number}))
            raise
        finally:
            self._waiting.pop(number, None)

    async def end(self) -> None:
        """Kill the sandbox; returns once the zygote has closed its end, when nothing is left. May be called again."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name="end of a sandbox")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(END_S):
                if self._reading is not None:
                    await asyncio.wait({self._reading})
                while await self._reader.read(CHUNK):  # answers that nobody waits for
                    pass
        except TimeoutError:
            log.warning("a sandbox of the tier %r did not end within %g s", self.zygote.tier, END_S)
        except ConnectionError:
            pass
        finally:
            if self._reading is not None:
                self._reading.cancel()
            self._writer.close()

    async def _read(self) -> None:
        """Hand out answers until the stream ends."""
        try:
            while True:
                words, data = await self._receive()
                number = words.get("id")
                waiting = self._waiting.get(number) if isinstance(number, int) else None
                if waiting is not None and not waiting.done():
                    waiting.set_result((words, data))
        except (EOFError, ConnectionError, frames.BadFrame) as error:
            log.debug("a sandbox's stream ended: %s", error)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._over())

    async def _receive(self) -> Answer:
        size, more = frames.lengths(await self._reader.readexactly(frames.HEAD.size))
        words = frames.parse(await self._reader.readexactly(size))
        return words, await self._reader.readexactly(more)

    def _over(self) -> SandboxFailed:
        if self._ending is not None:
            return SandboxFailed("the sandbox was killed")
        if not self.zygote.alive:
            return SandboxFailed("the process that sandboxes are made by has ended, and this sandbox with it")
        return SandboxFailed("the sandbox ended: its code used up its memory or killed it", "policy")
