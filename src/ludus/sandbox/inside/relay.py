"""A way out of a sandbox that has no network: connections to ports of its own are carried, as messages, by the host.

`serve` listens; the host comes for what has been sent, and brings answers, by running `ask` with one JSON request:

    {"listen": port}  ->  {"port": port}                                                        0 is a free one
    {"poll": n, "wait": s}   ->  {"number": m, "events": [[connection, port, base64], ...]}   "" opens, null closes
    {"push": n, "events": [[connection, base64], ...]}  ->  {}                                          null closes

Polls and pushes are numbered, so that one that is repeated, because its answer was lost, loses and doubles nothing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import socket
import sys
from typing import Any

CHUNK = 1 << 16
MOST_WAITING = 4 << 20
"""Bytes that may wait for the host; who sends more has to wait as well."""
LINE = 64 << 20


class Relay:
    """Connections that are open, and what of them waits for the host."""

    def __init__(self) -> None:
        self.ids = itertools.count()
        self.writers: dict[int, asyncio.StreamWriter] = {}
        self.events: list[tuple[int, int, str | None]] = []
        self.waiting = 0
        self.sent: dict[str, Any] = {"number": 0, "events": []}
        self.pushed = 0
        self.changed = asyncio.Condition()
        self.servers: list[asyncio.AbstractServer] = []

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: what it sends becomes events until it ends."""
        number, port = next(self.ids), writer.get_extra_info("sockname")[1]
        self.writers[number] = writer
        await self._add(number, port, "")
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._add(number, port, base64.b64encode(data).decode())
        await self._add(number, port, None)

    async def _add(self, number: int, port: int, data: str | None) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.waiting < MOST_WAITING)
            self.events.append((number, port, data))
            self.waiting += len(data or "")
            self.changed.notify_all()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of the host."""
        with contextlib.suppress(ValueError, OSError):
            request = json.loads(await reader.readline())
            do = next(name for name in ("listen", "poll", "push") if name in request)
            answer = await getattr(self, f"_{do}")(request)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _listen(self, request: dict[str, Any]) -> dict[str, Any]:
        server = await asyncio.start_server(self.carry, "127.0.0.1", request["listen"])
        self.servers.append(server)
        return {"port": server.sockets[0].getsockname()[1]}

    async def _poll(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self.changed:
            if request["poll"] == self.sent["number"]:
                with contextlib.suppress(asyncio.TimeoutError):  # an image may have an older Python
                    await asyncio.wait_for(self.changed.wait_for(lambda: bool(self.events)), request["wait"])
                self.sent = {"number": request["poll"] + 1, "events": self.events}
                self.events, self.waiting = [], 0
                self.changed.notify_all()
            return self.sent

    async def _push(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["push"] > self.pushed:
            self.pushed = request["push"]
            for number, data in request["events"]:
                writer = self.writers.get(number)
                if writer is None:
                    continue
                with contextlib.suppress(OSError):
                    if data is None:
                        del self.writers[number]
                        writer.close()
                    else:
                        writer.write(base64.b64decode(data))  # one who does not read must not hold up the others
        return {}


async def serve(folder: str) -> None:
    """Answer whoever asks at the socket in this folder."""
    asked = await asyncio.start_unix_server(Relay().answer, f"{folder}/socket", limit=LINE)
    async with asked:
        await asked.serve_forever()


def ask(folder: str) -> None:
    """Put the request on stdin to the one that serves, and print its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{folder}/socket")
        connection.sendall(sys.stdin.buffer.read().rstrip(b"\n") + b"\n")
        while data := connection.recv(CHUNK):
            sys.stdout.buffer.write(data)


def main(do: str, folder: str) -> None:
    """ "serve" or "ask"."""
    if do == "serve":
        asyncio.run(serve(folder))
    else:
        ask(folder)
