"""The servers of an environment that is open: what rollouts share runs, the others start with each rollout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ludus.authoring.mcp.server import McpServer
from ludus.authoring.tools import Tool
from ludus.errors import ConfigError, MissingExtra, ServerLost

if TYPE_CHECKING:
    from mcp_types import CallToolResult

    from ludus.authoring.mcp.connection import Connection
    from ludus.authoring.mcp.results import Call

STARTS = 8
"""Servers of an environment that start at once: hundreds would all be slow, and all be late."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 2.0
"""Between tries to find a server again; each is twice as long as the one before."""


class OpenServers:
    """Opened and closed with the environment.

    Args:
        servers: the environment's.

    Raises:
        ConfigError: something in `servers` is no McpServer.
        MissingExtra: there are some, but the SDK is not installed.
    """

    def __init__(self, servers: Sequence[McpServer]) -> None:
        if not isinstance(servers, list | tuple) or not all(isinstance(server, McpServer) for server in servers):
            raise ConfigError(f"servers must be a tuple of McpServer, as in (McpServer(...),), got {servers!r}")
        if servers:
            _need_sdk()
        self._connections = _Connections()
        self._shared = [_Shared(server, self._connections) for server in servers if not server.per_rollout]
        self._single = [server for server in servers if server.per_rollout]
        self._exits = AsyncExitStack()
        self.tools: dict[str, Tool] = {}
        """Of the shared servers."""

    async def __aenter__(self) -> OpenServers:
        """Raises ServerLost, and ConfigError for two tools of one name."""
        async with AsyncExitStack() as exits:
            exits.push_async_callback(self._connections.close)
            for shared in self._shared:
                exits.push_async_callback(shared.stop)
            for found in await asyncio.gather(*(shared.open() for shared in self._shared)):
                add_tools(self.tools, found)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exits.aclose()

    @asynccontextmanager
    async def of_rollout(self) -> AsyncIterator[list[Tool]]:
        """Tools of servers that one rollout has for itself, as long as it lasts. Raises ServerLost."""
        async with AsyncExitStack() as exits:
            tools: list[Tool] = []
            for server in self._single:
                connection = await self._connections.make(server)
                exits.push_async_callback(connection.close)
                tools += _tools_of(connection, connection.call)
            yield tools


class _Connections:
    """All connections of an environment that is open: few start at once, and none outlives it.

    The ones that rollouts close are closed again here, since a rollout that is cancelled twice does not wait for it.
    """

    def __init__(self) -> None:
        self._starts = asyncio.Semaphore(STARTS)
        self._made: list[Connection] = []
        self._known: set[McpServer] = set()

    async def make(self, server: McpServer) -> Connection:
        """A connection that is open. A server at a URL that was there before may be on its way back, and is waited for
        as long as it may take to start. Raises ServerLost."""
        patience_s = server.start_timeout_s if server.url and server in self._known else 0.0
        deadline, delay_s = time.monotonic() + patience_s, FIRST_DELAY_S
        while True:
            try:
                connection = await self._open(server)
            except ServerLost:
                if time.monotonic() + delay_s > deadline:
                    raise
            else:
                self._known.add(server)
                return connection
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _open(self, server: McpServer) -> Connection:
        from ludus.authoring.mcp.connection import Connection

        async with self._starts:
            connection = Connection(server)
            self._made = [*(made for made in self._made if not made.ended), connection]
            await connection.open()
        return connection

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._made))


def add_tools(tools: dict[str, Tool], more: Iterable[Tool]) -> None:
    """Put more tools beside those that are there, by name. Raises ConfigError for a name that is taken."""
    for tool in more:
        if tool.name in tools:
            raise ConfigError(
                f"two tools are called {tool.name!r}: give the MCP server of one of them a prefix, as in "
                f"McpServer(..., prefix='my_')"
            )
        tools[tool.name] = tool


class _Shared:
    """A server that rollouts share: `server.pool` places for a connection, each made anew when that is lost."""

    def __init__(self, server: McpServer, connections: _Connections) -> None:
        self._places = [_Place(server, connections) for _ in range(server.pool)]
        self._apart, self._in_turn = _Place(server, connections), asyncio.Lock()
        self._is_process = bool(server.command)

    async def open(self) -> list[Tool]:
        """Connect, all at once. Raises ServerLost."""
        first, *_ = await asyncio.gather(*(place.connected() for place in self._places))
        return _tools_of(first, self._call)

    async def stop(self) -> None:
        """Start nothing any more."""
        await asyncio.gather(*(place.stop() for place in (*self._places, self._apart)))

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """The result of a call, made where least is under way; and, if the server is lost meanwhile, once more.

        When a process dies, one of the calls that were under way may have killed it. So they are made again one by one,
        in a process apart: the one at fault dies there alone.
        """
        place = min(self._places, key=lambda place: place.in_flight)
        connection = await place.connected()
        try:
            return await connection.call(name, arguments)
        except ServerLost:
            pass  # whoever calls is told what comes of the second try
        if not self._is_process:
            return await (await place.connected()).call(name, arguments)
        async with self._in_turn:
            return await (await self._apart.connected()).call(name, arguments)


class _Place:
    """One connection at a time; whoever finds it lost waits for the same new one."""

    def __init__(self, server: McpServer, connections: _Connections) -> None:
        self._server, self._connections = server, connections
        self._connection: Connection | None = None
        self._starting: asyncio.Task[Connection] | None = None

    @property
    def in_flight(self) -> int:
        return self._connection.in_flight if self._connection is not None else 0

    async def connected(self) -> Connection:
        """A connection that takes calls. Raises ServerLost."""
        if self._connection is not None and self._connection.alive:
            return self._connection
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """Start nothing any more."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])

    async def _start(self) -> Connection:
        if self._connection is not None:
            await self._connection.close()
        self._connection = await self._connections.make(self._server)
        return self._connection

    def _started(self, task: asyncio.Task[Connection]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits for it any more


def _tools_of(connection: Connection, call: Call) -> list[Tool]:
    from ludus.authoring.mcp.results import as_tools

    return [*as_tools(connection.tools, connection.server, call)]


def _need_sdk() -> None:
    """Raises MissingExtra; also for the SDK of a version that has no Client yet."""
    try:
        from mcp import Client  # noqa: F401
    except ImportError:
        raise MissingExtra("MCP servers", "mcp") from None
