"""Ways out of a sandbox without a network: sockets that listen inside it, and are answered by the host.

A sandbox's first process makes the socket on its own loopback and hands it over. Whoever connects to it inside talks to
this process, which carries the bytes to one address and to no other; nothing of it runs in the sandbox.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ludus.errors import ConfigError, SandboxFailed, SandboxUnavailable
from ludus.sandbox.stream import Stream

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 1024
"""At once, of one sandbox: each takes two of this process's descriptors. Others wait until some have ended."""
MOST_CONNECTING = 16
"""At once, of one sandbox: a server's queue of those that it has not taken yet may be short, and it resets what is more."""
CONNECT_S = 20.0
PAUSE_S = 0.05
CHUNK = 1 << 16
PORTS = {"http": 80, "ws": 80}
PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED}
"""What accepting may fail with, for now."""

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[Ends], Awaitable[None]]


class Doors:
    """Those of one sandbox.

    Args:
        stream: to the sandbox, which must have been made with a network.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)
        self._opening = asyncio.Lock()
        self._connecting = asyncio.Semaphore(MOST_CONNECTING)
        self._ports: dict[tuple[str, int], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def to(self, host: str, port: int) -> int:
        """The port inside that leads to an address of the host's. Raises SandboxFailed."""
        async with self._opening:
            if (host, port) not in self._ports:
                self._ports[host, port] = await self.open(partial(self._through, host, port))
            return self._ports[host, port]

    async def open(self, serve: Serve) -> int:
        """The port of a new listening socket inside, each of whose connections is served here. Raises SandboxFailed."""
        listener = await self._stream.listener()
        if self._closed:
            listener.close()
            raise SandboxFailed("the sandbox was killed")
        self._begin(self._accept(listener, serve), "door of a sandbox")
        port: int = listener.getsockname()[1]
        return port

    async def close(self) -> None:
        """End all connections; returns once no socket is left."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _through(self, host: str, port: int, ends: Ends) -> None:
        """Carry a connection to an address; where nobody answers there, the connection ends."""
        async with self._connecting, asyncio.timeout(CONNECT_S):
            other = await asyncio.open_connection(host, port)
        await join(ends, other)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection of a sandbox: %r", error)

    async def _accept(self, listener: socket.socket, serve: Serve) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                await self._room.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    self._room.release()
                    if error.errno not in PASSING:
                        raise
                    await asyncio.sleep(PAUSE_S)
                    continue
                task = self._begin(_serve(connection, serve), "connection of a sandbox")
                task.add_done_callback(partial(self._leave, connection))

    def _leave(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._room.release()
        if task.cancelled():  # perhaps before it began
            connection.close()


async def _serve(connection: socket.socket, serve: Serve) -> None:
    try:
        ends = await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
    try:
        await serve(ends)
    except* OSError as error:  # either side has gone away
        log.debug("a connection of a sandbox ended: %s", error)
    finally:
        if not ends[1].is_closing():
            ends[1].transport.abort()


async def join(one: Ends, other: Ends, idle_s: float | None = None) -> None:
    """Carry bytes both ways until both sides have ended, and close both; a half-close is passed on.

    Args:
        idle_s: give up when nothing has come from either side for so long; None is never.

    Raises:
        ExceptionGroup: of OSError, a side that broke off.
        TimeoutError: idle for too long.
    """
    writers = one[1], other[1]
    try:
        async with asyncio.timeout(idle_s) as limit, asyncio.TaskGroup() as both:
            both.create_task(_carry(one[0], other[1], limit, idle_s))
            both.create_task(_carry(other[0], one[1], limit, idle_s))
        for writer in writers:
            writer.close()
            await writer.wait_closed()
    except BaseException:
        for writer in writers:
            writer.transport.abort()
        raise


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout, idle_s: float | None
) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
        if idle_s is not None:
            limit.reschedule(asyncio.get_running_loop().time() + idle_s)
    writer.write_eof()


def address_of(url: str) -> tuple[SplitResult, str, int]:
    """An address in its parts, its host and its port.

    Raises:
        ConfigError: it is none.
        SandboxUnavailable: TLS, which would find another name than the certificate's.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"reach: expected an address such as http://127.0.0.1:8000/v1, got {url!r}") from None
    if parts.scheme in ("https", "wss"):
        raise SandboxUnavailable(
            f"reach: {parts.hostname} can't be shown to a sandbox as an address of its own, since its certificate is for "
            f"another name; allow the host itself with SandboxSpec(network=({parts.hostname!r},))"
        )
    if parts.scheme not in PORTS or not parts.hostname:
        raise ConfigError(f"reach: expected an address such as http://127.0.0.1:8000/v1, got {url!r}")
    return parts, parts.hostname, PORTS[parts.scheme] if port is None else port


def inside(parts: SplitResult, port: int) -> str:
    """The same address as it is called in the sandbox."""
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()
