"""`Tunnel`: a Unix socket that leads to the address of one rollout, for sandboxes that have no network."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit


class Tunnel:
    """Forwards what comes to a Unix socket, byte by byte, to the server of a base URL. It lives as long as its context.

    Args:
        url: where to; the key in it is what opens that address, and no other.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._folder = Path()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def path(self) -> Path:
        """Of the socket."""
        return self._folder / "model.sock"

    async def __aenter__(self) -> Tunnel:
        self._folder = Path(tempfile.mkdtemp(prefix="ludus-tunnel-"))
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        self.path.chmod(0o666)  # a sandbox has a user of its own; the folder above is ours alone
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None  # it was entered
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # it runs in one
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            there = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        except (OSError, asyncio.CancelledError):
            pass  # one side has gone, or the rollout is over
        finally:
            writer.close()
            there[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
