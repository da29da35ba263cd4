"""Addresses of the host in a remote sandbox, wherever that is: no network leads here from a container without one, from
somebody's cluster or from a service. A small server in the sandbox takes connections, and their bytes go to and fro in
scripts, as everything else does. A model's answer takes tenths of a second longer that way.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ludus.errors import ConfigError, SandboxFailed, SandboxFileError, SandboxUnavailable
from ludus.sandbox.remote import scripts

if TYPE_CHECKING:
    from ludus.sandbox.remote.sandbox import RemoteSandbox

log = logging.getLogger(__name__)

WAIT_S = 20.0
"""How long one poll waits for something to be sent."""
CHUNK = 1 << 16
MOST_AT_ONCE = 2 << 20
"""Bytes, in base64, of one push."""
BEGINNINGS = 3
MOST_CONNECTIONS = 256
"""At a time, of one sandbox."""
MOST_UNREAD = 64
"""Pieces that may wait for a server here to read them."""

Event = tuple[int, str | None]


class Reach:
    """The addresses that one sandbox may reach."""

    def __init__(self, sandbox: RemoteSandbox) -> None:
        self._sandbox = sandbox
        self._places: dict[tuple[str, int], int] = {}  # ports of the sandbox, by host and port
        self._connections: dict[int, Connection] = {}
        self._outgoing: list[Event] = []
        self._waiting = 0
        self._changed = asyncio.Condition()
        self._beginning = asyncio.Lock()
        self._carrying: list[asyncio.Task[None]] = []
        self._polled = self._pushed = self._times = 0

    async def address(self, url: str) -> str:
        """The address in the sandbox for one of the host. Raises SandboxUnavailable, ConfigError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"reach: expected an address that begins with http://, got {url!r}")
        place = (parts.hostname, parts.port or 80)
        async with self._beginning:
            if not self._carrying:
                await self._begin()
            if place not in self._places:
                self._places[place] = await self._listen(0)
        return parts._replace(netloc=f"127.0.0.1:{self._places[place]}").geturl()

    async def close(self) -> None:
        """End all connections."""
        await self._stop()

    async def _begin(self) -> None:
        """Start the server in the sandbox, at the ports that it had before, and carry for it."""
        self._times += 1
        self._polled = self._pushed = 0
        script = scripts.begin_relay(self._sandbox.relay_folder, self._sandbox.programs)
        try:
            await self._sandbox.asked(script, "reach the host from")
        except SandboxFileError as error:
            raise SandboxUnavailable(str(error)) from None
        for port in self._places.values():
            await self._listen(port)
        self._carrying = [asyncio.create_task(work(), name="reach of a sandbox") for work in (self._poll, self._push)]

    async def _listen(self, port: int) -> int:
        return int((await self._ask({"listen": port}))["port"])

    async def _stop(self) -> None:
        carrying, self._carrying = self._carrying, []
        connections, self._connections = list(self._connections.values()), {}
        tasks = [*carrying, *(connection.task for connection in connections)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._outgoing, self._waiting = [], 0

    async def _begin_again(self, times: int) -> None:
        """After a time-out has killed all processes of the sandbox."""
        async with self._beginning:
            for number in range(1, BEGINNINGS + 1):
                if self._times != times:
                    return  # somebody else has done it
                await self._stop()
                try:
                    await self._begin()
                except (SandboxFailed, SandboxUnavailable) as error:
                    log.warning("a sandbox can't reach the host any longer: %s", error)
                    times = self._times
                    await asyncio.sleep(number)

    async def _poll(self) -> None:
        """Take what is sent in the sandbox to where it is meant for."""
        while True:
            answer = await self._carried({"poll": self._polled, "wait": WAIT_S})
            if answer is None:
                return
            try:
                self._polled = int(answer["number"])
                events = [(int(number), int(port), _decoded(data)) for number, port, data in answer["events"]]
            except (KeyError, TypeError, ValueError) as error:
                log.warning("a sandbox sent something that is no connection; it reaches nothing any more: %r", error)
                return
            for number, port, data in events:
                await self._deliver(number, port, data)

    async def _deliver(self, number: int, port: int, data: bytes | None) -> None:
        connection = self._connections.get(number)
        if connection is None:
            place = next((place for place, known in self._places.items() if known == port), None)
            if data is None or place is None:
                return
            if len(self._connections) >= MOST_CONNECTIONS:
                await self._add(number, None)
                return
            connection = self._connections[number] = Connection(number, place, self._add)
        await connection.give(data)

    async def _push(self) -> None:
        """Take what comes back into the sandbox: as much as there is, while the push before was under way."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._outgoing))
                events, self._outgoing, self._waiting = self._outgoing, [], 0
                self._changed.notify_all()
            for number, data in events:
                if data is None:
                    self._connections.pop(number, None)
            self._pushed += 1
            if await self._carried({"push": self._pushed, "events": events}) is None:
                return

    async def _add(self, number: int, data: bytes | None) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting < MOST_AT_ONCE)
            text = None if data is None else base64.b64encode(data).decode()
            self._outgoing.append((number, text))
            self._waiting += len(text or "")
            self._changed.notify_all()

    async def _carried(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of the server in the sandbox; None if it is gone, when a new one is seen to."""
        try:
            return await self._ask(request)
        except SandboxFailed as error:
            if not self._sandbox.over:
                log.debug("the server in a sandbox is gone: %s", error)
                self._sandbox.also(self._begin_again(self._times))
            return None

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of the server in the sandbox. Raises SandboxFailed."""
        place = self._sandbox.new_place()
        begin = await self._sandbox.given(place, json.dumps(request).encode())
        script = f"{begin}\n{scripts.ask_relay(self._sandbox.relay_folder, place)}"
        lines = await self._sandbox.asked(script, "reach the host from")
        try:
            answer: dict[str, Any] = json.loads(lines[1])
        except (IndexError, ValueError):
            raise SandboxFailed("the server in the sandbox that leads to the host is gone", "policy") from None
        return answer


class Connection:
    """One connection of the sandbox's, continued on the host."""

    def __init__(self, number: int, place: tuple[str, int], add: Any) -> None:
        self.number, self.place, self.add = number, place, add
        self.given: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_UNREAD)
        self.task = asyncio.create_task(self._carry(), name="connection of a sandbox")

    async def give(self, data: bytes | None) -> None:
        """Send something on; None is the end of it. Waits while too much has not been read."""
        put = asyncio.ensure_future(self.given.put(data))
        await asyncio.wait({put, self.task}, return_when=asyncio.FIRST_COMPLETED)
        put.cancel()

    async def _carry(self) -> None:
        try:
            reader, writer = await asyncio.open_connection(*self.place)
        except OSError:
            await self.add(self.number, None)
            return
        giving = asyncio.create_task(self._give(writer))
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    await self.add(self.number, data)
            await self.add(self.number, None)
        finally:
            giving.cancel()
            writer.close()

    async def _give(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while (data := await self.given.get()) is not None:
                writer.write(data)
                await writer.drain()
            writer.write_eof()


def _decoded(data: str | None) -> bytes | None:
    return None if data is None else base64.b64decode(data)
