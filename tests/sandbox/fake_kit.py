"""What the fakes of engines, clusters and services share: a local sandbox for a computer, and a server on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import asynccontextmanager

import uvicorn

from ludus.sandbox import Limits, LocalSandbox, SandboxSpec
from ludus.sandbox.remote import engine, kubernetes

LARGE = Limits(memory_bytes=1 << 30, processes=400, disk_bytes=512 << 20, output_bytes=16 << 20)


PLACES = ("/app", "/logs", "/tests", "/data")
"""Folders that may be made there, as in an image in which everything is writable."""


async def computer() -> LocalSandbox:
    """What stands for a machine elsewhere."""
    sandbox = await LocalSandbox.create(SandboxSpec(limits=LARGE, folders=PLACES, tier="namespaces"))
    assert sandbox.tier == "namespaces"  # `kill -9 -1` is run there
    return sandbox


async def run_there(sandbox: LocalSandbox, argv, stdin=b"") -> str | None:
    """What a command prints; None if the sandbox ended meanwhile."""
    try:
        return (await sandbox.exec(argv, stdin=stdin, timeout_s=600)).stdout
    except Exception:
        return None


async def forget_clients():
    """Close the adapters' clients. A call that nobody waits for any more ends first: it would find no server, and the
    clients leave their sockets open where a connection fails."""
    while any(thread.name == "sandbox call" for thread in threading.enumerate()):
        await asyncio.sleep(0.005)
    engine.forget_clients()
    kubernetes.forget_clusters()


@asynccontextmanager
async def served(app):
    """The port of an application that is served on loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        settings = uvicorn.Config(app, log_level="error", lifespan="off", ws="websockets-sansio", ws_max_size=64 << 20,
                                  timeout_graceful_shutdown=1)  # fmt: skip
        server = uvicorn.Server(settings)
        server.install_signal_handlers = lambda: None
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving
