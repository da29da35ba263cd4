"""`Direct`: an httpx transport for hundreds of calls at once to one API.

httpx's own looks at every connection for each call, which at some hundreds takes ten times as long as all else. Here a
connection belongs to one call at a time, and then waits for the next. Left out: proxies, for which httpx's own is used,
HTTP/2, and time limits, which are the caller's.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import h11
import httpx2

IDLE_S = 5.0
"""After which a connection is not used again: many servers close theirs by then."""
PIECE_BYTES = 1 << 16


def async_client(url: str) -> httpx2.AsyncClient:
    """A client for an address, direct unless the environment names a proxy for it."""
    parts = urlsplit(url)
    through = {parts.scheme, "all"} & getproxies().keys() and not proxy_bypass(parts.hostname or "")
    return httpx2.AsyncClient(mounts={} if through else {"all://": Direct()}, timeout=None, follow_redirects=True)


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))
    since: float = 0.0
    """When it became idle."""

    @property
    def usable(self) -> bool:
        return not self.reader.at_eof() and time.monotonic() - self.since < IDLE_S

    async def ask(self, request: h11.Request, content: bytes) -> tuple[h11.Response, bytes]:
        """Raises OSError, h11.ProtocolError."""
        events = (request, h11.Data(content), h11.EndOfMessage())
        self.writer.write(b"".join(self.http.send(event) or b"" for event in events))
        await self.writer.drain()
        response: h11.Response | None = None
        parts: list[bytes] = []
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.reader.read(PIECE_BYTES))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None  # h11 says them in order
                return response, b"".join(parts)
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the server closed the connection without an answer")


class Direct(httpx2.AsyncBaseTransport):
    """A connection for each call under way."""

    def __init__(self) -> None:
        self._certificates: ssl.SSLContext | None = None
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises httpx2.TransportError."""
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(f"expected an address that begins with http:// or https://, got {url}")
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        content = await request.aread()
        connection = await self._take(origin)
        try:
            asked = h11.Request(method=request.method, target=url.raw_path, headers=request.headers.raw)
            response, body = await connection.ask(asked, content)
        except BaseException as error:
            connection.writer.close()
            if isinstance(error, h11.RemoteProtocolError | OSError):
                raise httpx2.RemoteProtocolError(str(error) or type(error).__name__) from error
            if isinstance(error, h11.LocalProtocolError):
                raise httpx2.LocalProtocolError(str(error)) from error
            raise
        self._give_back(origin, connection)
        return httpx2.Response(response.status_code, headers=list(response.headers), content=body)

    async def _take(self, origin: tuple[str, str, int]) -> _Connection:
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        scheme, host, port = origin
        if scheme == "https" and self._certificates is None:
            self._certificates = httpx2.create_ssl_context()
        try:
            reader, writer = await asyncio.open_connection(
                host, port, ssl=self._certificates if scheme == "https" else None
            )
        except (OSError, UnicodeError, OverflowError) as error:  # the latter for what can be no host and no port
            raise httpx2.ConnectError(str(error)) from error
        return _Connection(reader, writer)

    def _give_back(self, origin: tuple[str, str, int], connection: _Connection) -> None:
        if (connection.http.our_state, connection.http.their_state) != (h11.DONE, h11.DONE):
            connection.writer.close()  # the server said so
            return
        connection.http.start_next_cycle()
        connection.since = time.monotonic()
        idle = self._idle.setdefault(origin, [])
        idle.append(connection)
        while not idle[0].usable:
            idle.pop(0).writer.close()

    async def aclose(self) -> None:
        """Close the idle connections; those in use belong to calls."""
        connections = [connection for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        for connection in connections:
            connection.writer.close()
        await asyncio.gather(*(connection.writer.wait_closed() for connection in connections), return_exceptions=True)
