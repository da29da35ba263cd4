"""The stream to a sandbox's first process: numbered calls, and a task that hands answers to whoever waits.

What comes through it was written by the sandbox. It is bounded, parsed with care, and can only hurt its own sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Self

from ludus.errors import ConfigError, SandboxFailed, SandboxUnavailable, UsageError
from ludus.sandbox.host import Zygote
from ludus.sandbox.inside import frames
from ludus.sandbox.spec import SandboxSpec

log = logging.getLogger(__name__)

START_S = 60.0
END_S = 30.0
CHUNK = 1 << 16

Answer = tuple[dict[str, Any], bytes]


class Stream:
    """One living sandbox of a zygote; made by `open`."""

    def __init__(
        self,
        zygote: Zygote,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        doors: socket.socket | None,
    ) -> None:
        self.zygote, self._number = zygote, number
        self._reader, self._writer, self._doors = reader, writer, doors
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.first_end: Callable[[], Awaitable[None]] | None = None
        """What else has to end, before the sandbox does."""

    @classmethod
    async def open(cls, zygote: Zygote, spec: SandboxSpec) -> tuple[Self, dict[str, Any]]:
        """A new sandbox, and what it says first. Raises SandboxUnavailable, SandboxFailed."""
        ours: list[socket.socket] = []
        try:
            with contextlib.ExitStack() as theirs:
                ends = []
                for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)[: 1 if spec.network == "none" else 2]:
                    our_end, their_end = socket.socketpair(socket.AF_UNIX, kind)
                    ours.append(our_end)
                    ends.append(theirs.enter_context(their_end))
                number = await zygote.ask(spec, ends)
            reader, writer = await asyncio.open_connection(sock=ours[0])
        except BaseException as error:
            for end in ours:
                end.close()
            if isinstance(error, OSError):
                raise SandboxFailed(f"no sandbox could be asked for: {error}") from error
            raise
        stream = cls(zygote, number, reader, writer, ours[1] if len(ours) > 1 else None)
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
        """One request and its answer. If nobody waits any longer, what it started is killed.

        Raises:
            SandboxFailed: the sandbox is gone.
            UsageError: this is not the event loop that it was made in.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("a sandbox is for the event loop that it was made in; make one in this loop")
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

    async def listener(self) -> socket.socket:
        """A new socket that listens on the loopback of the sandbox, which must have a network. Raises SandboxFailed."""
        words, _ = await self.call("listen", {})
        if "error" in words or self._doors is None:
            raise SandboxFailed(f"no address could be opened in the sandbox: {words.get('error')}", "policy")
        try:  # it was sent before the answer
            _, fds, _, _ = socket.recv_fds(self._doors, 1, 1, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
            listener = socket.socket(fileno=fds[0])
        except (OSError, IndexError) as error:
            raise SandboxFailed(f"no address could be opened in the sandbox: {error}") from None
        listener.setblocking(False)
        return listener

    async def end(self) -> None:
        """Kill the sandbox; returns once the zygote has closed its end, when nothing is left. May be called again."""
        if os.getpid() != self._pid:  # a fork of the process that it belongs to
            return
        if asyncio.get_running_loop() is not self._loop:
            await self._end_elsewhere()
            return
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name="end of a sandbox")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self.first_end is not None:
            await self.first_end()
        self.zygote.dismiss(self._number)
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
            self._close()

    def _close(self) -> None:
        self._writer.close()
        if self._doors is not None:
            self._doors.close()

    async def _end_elsewhere(self) -> None:
        """As `end`, in another event loop than its own, which may be closed."""
        if not self._loop.is_closed():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.end(), self._loop))
            return
        if self._doors is not None:
            self._doors.close()
        end = self._writer.get_extra_info("socket")
        if end.fileno() >= 0:
            with contextlib.suppress(OSError), end.dup() as own:
                own.setblocking(False)
                own.shutdown(socket.SHUT_WR)
                while await asyncio.get_running_loop().sock_recv(own, CHUNK):
                    pass

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
        except asyncio.CancelledError:  # its event loop comes to an end, and the sandbox with it
            self._close()
            raise
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
