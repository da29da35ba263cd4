"""One connection to an MCP server.

It lives in a task of its own, where it is entered and left, as the SDK's cancel scopes demand; rollouts call through it
from their own tasks. Whatever ends it, a group of exceptions in the middle of the SDK included, is one line for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    CallToolResult,
    Tool,
)
from pydantic import ValidationError

from ludus.authoring.mcp.server import McpServer
from ludus.authoring.mcp.wires import LastWords, ServerGone, over_http, over_stdio
from ludus.errors import RolloutError, ServerLost, ToolError

NO_ANSWER = (CONNECTION_CLOSED, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR)
"""Errors that say something of the connection, or of this client, and nothing of the arguments that a model chose."""
NO_ANSWER_TEXTS = ("Server returned an error response",)
"""What the SDK makes of HTTP errors without a message; its code alone could also be a tool's own error."""
SESSION_ENDED = "Session terminated"
SETTLING_S = 0.5
"""For a connection that broke to end, so that it can say why; and before a call is tried again on one that did not."""
CLOSING_S = 10.0
MOST_PAGES = 100


class Connection:
    """A connection to `server`; `tools` are there once it is open."""

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tools: list[Tool] = []
        self.in_flight = 0
        self._client: Client | None = None
        self._words = LastWords()
        self._why = ""
        self._answered = 0.0
        """When the server last answered."""
        self._known = asyncio.Event()
        """It is open, or never will be."""
        self._ending = asyncio.Event()
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._client is not None

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left."""
        return self._task is not None and self._task.done()

    async def open(self) -> None:
        """Start and connect. Raises ServerLost, with nothing left running."""
        self._task = asyncio.create_task(self._live(), name=f"MCP server {self.server.name}")
        try:
            async with asyncio.timeout(self.server.start_timeout_s):
                await self._known.wait()
        except TimeoutError:
            self._why = f"did not start within {self.server.start_timeout_s:g} s"
        finally:
            if not self.alive:
                await self.close()
        if not self.alive:
            raise self._lost()

    async def close(self) -> None:
        """End it, and wait until nothing of it is left."""
        if self._task is None:
            return
        self._ending.set()
        if not self._known.is_set():
            self._scope.cancel()  # unlike a task's own cancel, it leaves alone what ends a process
        for _ in range(2):
            await asyncio.wait([self._task], timeout=CLOSING_S)
            self._scope.cancel()

    async def call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """The result of one call.

        Raises:
            ServerLost: the connection broke, or what came back was no answer.
            ToolError: the server refuses, as servers do when arguments don't fit.
            RolloutError: no answer in time, or one that its own schema forbids.
        """
        client, began = self._client, time.monotonic()
        if client is None:
            raise self._lost()
        what = f"the tool {name} of the MCP server {self.server.name}"
        self.in_flight += 1
        try:
            async with asyncio.timeout(self.server.timeout_s) as limit:
                result = await client.call_tool(name, dict(arguments))
        except MCPError as error:
            if error.code in NO_ANSWER or error.message in NO_ANSWER_TEXTS:
                raise await self._settled(error.message) from None
            self._answered = time.monotonic()
            raise ToolError(self.server.without_secrets(error.message)) from None
        except TimeoutError:
            if not limit.expired():
                raise await self._settled("timed out") from None
            if self._answered < began:
                self._ending.set()  # it answered nobody in all that time: whoever calls next starts another one
            text = f"{what} took more than {self.server.timeout_s:g} s"
            raise RolloutError(text, "tool", "infrastructure") from None
        except (RuntimeError, ValueError) as error:
            text = self.server.without_secrets(f"{what} answered what it must not: {_line(error)}")
            raise RolloutError(text, "tool", "infrastructure") from error
        finally:
            self.in_flight -= 1
        self._answered = time.monotonic()
        return result

    async def _live(self) -> None:
        """The whole life of the connection."""
        wire = (over_http if self.server.url else over_stdio)(self.server, self._words)
        try:
            with self._scope:
                await self._serve(Client(wire, mode=self.server.mode))
        except Exception as error:  # noqa: BLE001 - whatever it is, rollouts are told in one line
            self._why = self._why or _what_happened(error)
        finally:
            self._known.set()

    async def _serve(self, client: Client) -> None:
        """Connect, and be there until it is to end."""
        async with client:
            self.tools = await _all_tools(client)
            self._client = client
            self._known.set()
            try:
                await self._ending.wait()
            finally:
                self._client = None  # nobody calls while it is taken down

    async def _settled(self, said: str) -> ServerLost:
        """What to raise after a call without an answer, when it is known whether the connection survived."""
        assert self._task is not None  # it is open
        if said == SESSION_ENDED:
            self._ending.set()
        await asyncio.wait([self._task], timeout=SETTLING_S)
        return self._lost(said)

    def _lost(self, said: str = "") -> ServerLost:
        why = self._why or self._words.gone or (f"gave no answer: {said}" if said else "was closed")
        known = str(self._words)
        return ServerLost(
            self.server.without_secrets(f"the MCP server {self.server.name} {why}{f' ({known})' if known else ''}")
        )


async def _all_tools(client: Client) -> list[Tool]:
    """At least one. Raises ServerGone."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        try:
            page = await client.list_tools(cursor=cursor)
        except MCPError as error:
            if error.code != METHOD_NOT_FOUND:
                raise
            raise ServerGone("offers no tools") from None
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None and tools:
            return tools
        if cursor is None:
            raise ServerGone("offers no tools")
    raise ServerGone(f"lists tools without an end: {len(tools)} on {MOST_PAGES} pages")


def _what_happened(error: BaseException) -> str:
    """The first exception of a group of groups, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, ServerGone) else f"failed: {_line(error)}"


def _line(error: BaseException) -> str:
    """Type and first line; of a message that is not as the protocol has it, the first place where it isn't."""
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        return f"{error.title}, {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return f"{type(error).__name__}: {error}".partition("\n")[0]
