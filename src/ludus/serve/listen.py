"""Bind an address, say what it is, serve on it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ludus.errors import UsageError

if TYPE_CHECKING:
    from starlette.applications import Starlette


GRACE_S = 5


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: a name or address.
        port: 0 takes a free one.

    Raises:
        UsageError: the address is taken or not ours.
    """
    bound: socket.socket | None = None
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(1024)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise UsageError(f"can't listen on {host}:{port}: {error.strerror}; choose another --host or --port") from None
    return bound


def address(bound: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: Starlette, bound: socket.socket) -> None:
    """Serve until SIGINT (which then comes out as KeyboardInterrupt) or SIGTERM; replies under way are finished."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none")
    uvicorn.Server(config).run(sockets=[bound])


class Stoppable:
    """Serves inside a running event loop until it is told to stop. Signals are left to whoever runs the loop.

    Args:
        app: what answers.
        bound: a listening socket.
        websockets: whether the application takes them.
    """

    def __init__(self, app: Starlette, bound: socket.socket, *, websockets: bool = False) -> None:
        import uvicorn

        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws="websockets-sansio" if websockets else "none",
            timeout_graceful_shutdown=GRACE_S,
        )  # fmt: skip
        self._server, self._bound = uvicorn.Server(config), bound

    async def run(self) -> None:
        """Serve. What is being answered when it is told to stop has `GRACE_S` to come to its end."""
        await self._server._serve([self._bound])  # `serve` would catch signals

    def stop(self) -> None:
        """Take no more connections, and end."""
        self._server.should_exit = True
