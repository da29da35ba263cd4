"""The proxy through which a sandbox reaches the hosts of its allow-list, and no others.

It runs in this process and answers at a door of the sandbox. `CONNECT` asks for a tunnel, which is how programs use TLS;
a request with a whole address in its first line is passed on without TLS, one a connection. Names are resolved here, and
what is connected to is the very address that was checked.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import urlsplit

import h11

from ludus.errors import ConfigError
from ludus.sandbox.doors import Ends, join
from ludus.sandbox.hosts import is_allowed, may_connect, normal_name, parse_host

log = logging.getLogger(__name__)

MOST_HEAD = 16 << 10
HEAD_S = 20.0
CONNECT_S = 20.0
IDLE_S = 300.0
CHUNK = 1 << 13
HOP_BY_HOP = {b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade", b"host"}
REASONS = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}


class Refused(Exception):
    """A request that is not carried out: its status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Proxy:
    """Lets one sandbox reach some hosts.

    Args:
        hosts: the allow-list, as in `SandboxSpec.network`.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = [parse_host(entry) for entry in hosts]

    async def serve(self, ends: Ends) -> None:
        """Serve one connection. Raises OSError where a side breaks off."""
        reader, writer = ends
        try:
            async with asyncio.timeout(HEAD_S):
                request, rest = await _head(reader)
            name, port, head = _asked_for(request)
            other = await self._connect(name, port)
        except Refused as refused:
            log.debug("a sandbox was refused: %s", refused)
            writer.write(_answer(refused.status, str(refused)))
            writer.close()
            await writer.wait_closed()
            return
        if head:
            other[1].write(head + rest)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other[1].write(rest)
        await join(ends, other, IDLE_S)

    async def _connect(self, name: str, port: int) -> Ends:
        if not is_allowed(self.hosts, name, port):
            raise Refused(403, f"{name}:{port} is not among the hosts that this sandbox may reach")
        loop = asyncio.get_running_loop()
        problem = f"{name} has no address"
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
                addresses = [str(where[0]) for *_, where in found]
                allowed = [address for address in addresses if may_connect(self.hosts, address, port)]
                if addresses and not allowed:
                    raise Refused(403, f"{name} leads to {addresses[0]}, which this sandbox may not reach by a name")
                for address in allowed:
                    try:
                        return await asyncio.open_connection(address, port)
                    except OSError as error:
                        problem = f"{name}:{port} can't be reached: {error.strerror or error}"
        except TimeoutError:
            problem = f"{name}:{port} did not answer within {CONNECT_S:g} s"
        except (OSError, UnicodeError) as error:
            problem = f"{name} can't be resolved: {getattr(error, 'strerror', None) or error}"
        raise Refused(502, problem)


async def _head(reader: asyncio.StreamReader) -> tuple[h11.Request, bytes]:
    """A request, and what of its body has been read with it. Raises Refused, ConnectionError."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
    try:
        while (event := parser.next_event()) is h11.NEED_DATA:
            parser.receive_data(await reader.read(CHUNK))
    except h11.RemoteProtocolError as error:
        raise Refused(400, f"this is an HTTP proxy: {error}") from None
    if not isinstance(event, h11.Request):
        raise ConnectionError("it ended before a request")
    return event, parser.trailing_data[0]


def _asked_for(request: h11.Request) -> tuple[str, int, bytes]:
    """Host, port, and the head of the request to send there: none for a tunnel. Raises Refused."""
    method, target = request.method.decode(), request.target.decode()
    try:
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        name, port = normal_name(parts.hostname or ""), parts.port
    except (ValueError, ConfigError):
        _refuse_target(target)
    if not name or (parts.path or parts.query or port is None if method == "CONNECT" else parts.scheme != "http"):
        _refuse_target(target)
    if method == "CONNECT":
        assert port is not None
        return name, port, b""
    path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    kept = [(key, value) for key, value in request.headers if key not in HOP_BY_HOP]
    host = parts.netloc.rpartition("@")[2].encode()
    lines = [b"%s: %s" % pair for pair in [(b"Host", host), *kept, (b"Connection", b"close")]]
    head = b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *lines, b"", b""])
    return name, 80 if port is None else port, head


def _refuse_target(target: str) -> NoReturn:
    raise Refused(400, f"this is a proxy: expected CONNECT host:port or http://host/..., got {target[:200]!r}")


def _answer(status: int, why: str) -> bytes:
    body = f"{why}\n".encode()
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
