"""Servers for the tests, in a thread of their own: what asks them may block its event loop or not."""

import asyncio
import contextlib
import socket
import threading

import uvicorn


@contextlib.contextmanager
def served(app, port=0):
    """The address of an ASGI application, for as long as it is served."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.listen(1024)
    config = uvicorn.Config(app, log_level="critical", ws="websockets-sansio", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server._serve([bound])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


class Cut:
    """A connection between client and server that can be cut; `url` is its end for the client."""

    def __init__(self, url):
        self.port = int(url.rpartition(":")[2])
        self.answered = b""
        """What the server has said so far, and the client will have read before it finds the line cut."""
        self.writers, self.pumping = [], set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        self.cut()
        await asyncio.gather(*self.pumping)

    def cut(self):
        for writer in self.writers:
            writer.close()
        self.writers.clear()

    async def accept(self, reader, writer):
        self.pumping.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers += [writer, back]
        await asyncio.gather(self.pump(reader, back), self.pump(there, writer, answers=True))

    async def pump(self, reader, writer, answers=False):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                self.answered += data if answers else b""
        except OSError:
            pass
        writer.close()


def guarded(app, header, value):
    """The application behind a key."""

    async def checked(scope, receive, send):
        if scope["type"] == "lifespan" or (header.encode(), value.encode()) in scope["headers"]:
            await app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no key"})
        else:
            await receive()
            await send({"type": "websocket.close"})

    return checked
