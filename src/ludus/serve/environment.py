"""Serve an environment in the protocol of another trainer: until told to stop, or from a thread for a while."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from ludus.authoring.environment import Environment
from ludus.errors import MissingExtra, UnknownName
from ludus.serve import openenv, ors
from ludus.serve.floor import Floor
from ludus.serve.listen import Stoppable, address, listen

PROTOCOLS = {"openenv": "OpenEnv", "ors": "Open Reward Standard"}

OnStart = Callable[[Callable[[], None]], object]
"""Told how to stop, once it is about to be served."""


async def serve_environment(
    env: Environment, protocol: str, bound: socket.socket, on_start: OnStart, split: str = "", sessions: int = 256
) -> None:
    """Serve until told to stop; every episode is ended and cleaned up after.

    Args:
        env: is opened here.
        protocol: one of `PROTOCOLS`.
        bound: a listening socket.
        on_start: told how to stop.
        split: whose tasks are played where a client names none; "train" by default, if there is one.
        sessions: episodes at once.

    Raises:
        UsageError: there is no such protocol or split, or what it needs is not installed.
    """
    check_protocol(protocol)
    async with Floor(env, split, sessions) as floor:
        app = openenv.make_app(floor) if protocol == "openenv" else ors.make_app(floor)
        server = Stoppable(app, bound, websockets=protocol == "openenv")
        on_start(server.stop)
        await server.run()


@contextmanager
def served(env: Environment, protocol: str = "openenv", split: str = "", sessions: int = 256) -> Iterator[str]:
    """Serve on a free port of the loopback interface, from a thread; the address. For notebooks and tests.

    Args and raises: as `serve_environment`.
    """
    bound = listen("127.0.0.1", 0)
    stop: Future[Callable[[], None]] = Future()

    def work() -> None:
        try:
            asyncio.run(serve_environment(env, protocol, bound, stop.set_result, split, sessions))
        except BaseException as error:  # noqa: BLE001 - raised where the thread was started
            if not stop.done():
                stop.set_exception(error)

    thread = threading.Thread(target=work, name="ludus-serve", daemon=True)
    thread.start()
    try:
        stopping = stop.result()
        try:
            yield address(bound)
        finally:
            stopping()
    finally:
        thread.join()
        bound.close()


def check_protocol(protocol: str) -> None:
    """Raises UsageError for a protocol that does not exist, or whose packages are missing."""
    if protocol not in PROTOCOLS:
        raise UnknownName("protocol", protocol, PROTOCOLS)
    if protocol == "openenv":
        try:
            import websockets  # noqa: F401
        except ImportError:
            raise MissingExtra("serving over OpenEnv", "openenv") from None
