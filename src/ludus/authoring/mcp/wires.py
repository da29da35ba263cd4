"""How messages get to a server and back: over a process's standard input and output, or over HTTP.

The SDK has a transport for each. The one for processes is written anew here, since that one leaves children of the
server behind, keeps neither its last words nor its exit status, and logs every line that a server prints by mistake.
The one for HTTP is the SDK's, with a client that no slow tool can break: there, a request that times out, or that finds
no free connection for a while, ends the session of all.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from ludus.authoring.mcp.server import McpServer

LONGEST_LINE = 2**24
"""Bytes of one message of a process."""
GRACE_S = 1.0
"""For a process to end by itself, and again after it was asked to."""
KEPT = 2_000
"""Bytes of stderr, from the end."""
SHOWN = 300
"""Characters of it that an error shows."""
MOST_SOCKETS = 256
"""Of one HTTP connection; more calls than that wait for each other."""
CONNECT_S = 30.0


class ServerGone(Exception):
    """The server at the other end says no more, listens no more, or makes no sense."""


@dataclass
class LastWords:
    """What is known of a server when it is lost."""

    stderr: bytes = b""
    stray: str = ""
    """The last line on its standard output that was no message."""
    status: int | None = None
    """Exit status of its process."""
    refusal: str = ""
    """How its last HTTP answer began, if that was an error."""
    gone: str = ""
    """How it was noticed that its process is not there any more."""

    def __str__(self) -> str:
        lines = [line.strip() for line in self.stderr.decode(errors="replace").splitlines()]
        end = " | ".join(line for line in lines if line)[-SHOWN:]
        facts = (
            self.refusal,
            "" if self.status is None else f"exit status {self.status}",
            f"its standard output has {self.stray!r}, which is not MCP" if self.stray else "",
            f"its stderr ends: {end}" if end else "",
        )
        return "; ".join(filter(None, facts))


Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]
Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def over_http(server: McpServer, words: LastWords) -> AsyncIterator[Any]:
    """The two streams of a server at a URL."""

    async def note(response: httpx2.Response) -> None:
        if response.request.method == "POST":
            failed = response.status_code >= 400
            words.refusal = f"HTTP {response.status_code} {response.reason_phrase}".rstrip() if failed else ""

    async with (
        httpx2.AsyncClient(
            headers=server.headers,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),  # calls have a time limit of their own
            limits=httpx2.Limits(max_connections=MOST_SOCKETS),
            verify=_certificates(),
            event_hooks={"response": [note]},
        ) as client,
        streamable_http_client(server.url, http_client=client) as streams,
    ):
        yield streams


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a call, and rollouts may have a connection each."""
    return httpx2.create_ssl_context()


@asynccontextmanager
async def over_stdio(server: McpServer, words: LastWords) -> AsyncIterator[Streams]:
    """The two streams of a process, started here, and ended here with all of its process group.

    Raises ServerGone (in a group) when it ends by itself, OSError when it can't be started.
    """
    with anyio.CancelScope(shield=True):  # asyncio would kill it alone, without what it has started by then
        process = await asyncio.create_subprocess_exec(
            *server.command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=get_default_environment() | server.env, cwd=server.cwd, limit=LONGEST_LINE, start_new_session=True,
        )  # fmt: skip
    incoming, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with incoming, read_stream, write_stream, outgoing, anyio.create_task_group() as tasks:
            tasks.start_soon(_keep_stderr, process, words)
            tasks.start_soon(_read, process, incoming, words)
            tasks.start_soon(_write, process, outgoing, words)
            try:
                yield read_stream, write_stream
            finally:
                read_stream.close()  # from here on its last output is read and dropped: it may have to flush
                with anyio.CancelScope(shield=True):
                    await _stop(process, words)
                tasks.cancel_scope.cancel()
    finally:
        _kill(process)
        # A descendant that left the group may hold a pipe open, and with it this end of it; nothing public closes it.
        process._transport.close()  # type: ignore[attr-defined]


async def _read(process: asyncio.subprocess.Process, incoming: Incoming, words: LastWords) -> None:
    assert process.stdout is not None  # it is a pipe
    try:
        async for line in process.stdout:
            try:
                message = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError:
                words.stray = line[:SHOWN].decode(errors="replace").strip() or words.stray
                await asyncio.sleep(0)  # lines that are there already are read without a pause
                continue
            await incoming.send(message)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        while await process.stdout.read(LONGEST_LINE):
            pass
        return
    except ValueError:
        words.gone = f"wrote a line of more than {LONGEST_LINE >> 20} MiB"
        raise ServerGone(words.gone) from None
    if incoming.statistics().open_receive_streams:  # otherwise it was told to end
        words.gone = "has ended"
        raise ServerGone(words.gone)


async def _write(process: asyncio.subprocess.Process, outgoing: Outgoing, words: LastWords) -> None:
    assert process.stdin is not None  # it is a pipe
    try:
        async for item in outgoing:
            process.stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await process.stdin.drain()
    except ConnectionError:
        words.gone = words.gone or "does not listen any more"
        raise ServerGone(words.gone) from None


async def _keep_stderr(process: asyncio.subprocess.Process, words: LastWords) -> None:
    assert process.stderr is not None  # it is a pipe
    while chunk := await process.stderr.read(KEPT):
        words.stderr = (words.stderr + chunk)[-KEPT:]


async def _stop(process: asyncio.subprocess.Process, words: LastWords) -> None:
    """Close its input, which asks it to end; ask its group; kill what is left of that."""
    assert process.stdin is not None  # it is a pipe
    process.stdin.close()
    if not await _ends(process):
        _signal(process, signal.SIGTERM)
        if not await _ends(process):
            _kill(process)
            await _ends(process)
        return
    words.status = process.returncode
    _kill(process)


async def _ends(process: asyncio.subprocess.Process) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_S)
    return process.returncode is not None


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill whatever is left of its group: children live on after it, and keep the group's number from being reused."""
    _signal(process, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
