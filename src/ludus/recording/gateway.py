"""An OpenAI-compatible address for every rollout: one server on the loopback interface, one secret key a rollout and role.

`chat_endpoint` is the whole of the chat protocol; `ludus serve` answers with the same one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ludus.errors import ModelCallFailed, UsageError
from ludus.recording import wire
from ludus.recording.recorder import Recorder

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)


class Gateway:
    """Addresses of the rollouts of one event loop: the one it is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = threading.Lock()
        self._admitted: dict[str, tuple[Recorder, str]] = {}
        self._calls: dict[str, set[asyncio.Task[Response]]] = {}
        """By key, the calls that are being answered."""
        self._app: Starlette | None = None
        self._port = 0
        self._serving: asyncio.Task[None] | None = None
        self._server: Any = None
        self._http: Any = None

    def admit(self, recorder: Recorder, role: str) -> str:
        """A new secret key for a rollout and role."""
        key = secrets.token_urlsafe(18)
        self._admitted[key] = (recorder, role)
        return key

    def dismiss(self, key: str) -> None:
        """The key is good no longer, and what is being sampled for it nobody will read."""
        self._admitted.pop(key, None)
        self.interrupt(key)

    def interrupt(self, key: str) -> None:
        """End the calls under way: whoever asked has gone."""
        for call in self._calls.pop(key, ()):
            call.cancel()

    def address(self, key: str) -> str:
        """Base URL of a key. Starts the server if there is none yet; from any thread, as agents may be synchronous."""
        with self._listening:
            if not self._port:
                self._listen()
        return f"http://127.0.0.1:{self._port}/{key}/v1"

    def client(self, key: str) -> AsyncOpenAI:
        """An OpenAI client that calls the application in process."""
        import httpx2
        from openai import AsyncOpenAI

        if self._http is None:
            transport = httpx2.ASGITransport(self.app())
            self._http = httpx2.AsyncClient(transport=transport, timeout=None)
        return AsyncOpenAI(
            base_url=f"http://ludus/{key}/v1", api_key=key, http_client=self._http, max_retries=0, timeout=None
        )

    def app(self) -> Starlette:
        """The ASGI application."""
        if self._app is None:
            from starlette.applications import Starlette
            from starlette.routing import Route

            self._app = Starlette(
                routes=[
                    Route("/{key}/v1/chat/completions", self._chat, methods=["POST"]),
                    Route("/{key}/v1/models", self._models),
                ]
            )
        return self._app

    async def close(self) -> None:
        """Stop the server and wait until it has."""
        await asyncio.sleep(0)  # a thread may just have asked for it to be started
        if self._serving is not None:
            # else it would leave its socket open; uvicorn tells nobody when it has started
            while not self._server.started and not self._serving.done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            self._server.should_exit = True
            await self._serving
            self._serving, self._port = None, 0
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _listen(self) -> None:
        import uvicorn

        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.bind(("127.0.0.1", 0))
        bound.listen(1024)
        bound.setblocking(False)
        self._port = bound.getsockname()[1]
        config = uvicorn.Config(self.app(), log_level="warning", access_log=False, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None
        self._loop.call_soon_threadsafe(self._serve, bound)

    def _serve(self, bound: socket.socket) -> None:
        self._serving = self._loop.create_task(self._server._serve([bound]))

    def _find(self, request: Request) -> tuple[Recorder, str] | None:
        key = request.path_params["key"]
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        return self._admitted.get(key) if bearer == key else None

    async def _chat(self, request: Request) -> Response:
        found = self._find(request)
        if found is None:
            return error_response(401, "this address and key belong to no running rollout", "authentication_error")
        key = request.path_params["key"]
        call = asyncio.create_task(chat_endpoint(request, *found))
        self._calls.setdefault(key, set()).add(call)
        try:
            return await call
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if asking is not None and asking.cancelling():
                call.cancel()
                raise
            return error_response(401, "the rollout that this address belongs to is over", "authentication_error")
        finally:
            self._calls.get(key, set()).discard(call)

    async def _models(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        found = self._find(request)
        if found is None:
            return error_response(401, "this address and key belong to no running rollout", "authentication_error")
        recorder, role = found
        return JSONResponse(wire.models_response([recorder.backends[role].name]))


def error_response(status: int, message: str, kind: str) -> Response:
    """An error as OpenAI's clients expect it."""
    from starlette.responses import JSONResponse

    return JSONResponse(wire.error_body(message, kind), status_code=status)


async def chat_endpoint(request: Request, recorder: Recorder, role: str) -> Response:
    """Answer one POST to /chat/completions through a recorder, streaming or not."""
    from starlette.responses import JSONResponse, StreamingResponse

    try:
        body = await request.json()
        if not isinstance(body, dict):
            raise UsageError(f"expected the body to be a JSON object, got {type(body).__name__}")
        asked = wire.parse_chat(body)
    except (UsageError, ValueError, RecursionError) as error:
        return error_response(400, str(error), "invalid_request_error")
    head: dict[str, Any] = {
        "id": f"chatcmpl-{secrets.token_hex(8)}",
        "model": recorder.backends[role].name,
        "created": int(time.time()),
    }
    if asked.stream:
        return StreamingResponse(_stream(recorder, role, asked, head), media_type="text/event-stream")
    try:
        reply = await recorder.call(role, asked.messages, asked.tools, asked.sampling)
    except (ModelCallFailed, UsageError, ValueError) as error:
        return _failed(error)
    logprobs = recorder.sampled(reply) if asked.logprobs else None
    return JSONResponse(wire.chat_response(reply, token_logprobs=logprobs, **head))


async def _stream(recorder: Recorder, role: str, asked: wire.ChatRequest, head: dict[str, Any]) -> AsyncIterator[bytes]:
    """Server-sent events while the reply is being sampled; closing the stream cancels the call."""
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    # Log-probabilities belong to tokens, pieces are text: whoever asks for them gets the reply in one piece.
    on_text = None if asked.logprobs else pieces.put_nowait
    call = asyncio.create_task(recorder.call(role, asked.messages, asked.tools, asked.sampling, on_text))
    call.add_done_callback(lambda _: pieces.put_nowait(None))
    sent = 0
    try:
        while (piece := await pieces.get()) is not None:
            yield wire.text_chunk(piece, first=sent == 0, **head)
            sent += len(piece)
        reply = await call
    except (ModelCallFailed, UsageError, ValueError) as error:
        yield wire.error_event(str(error))
        return
    finally:
        call.cancel()
    logprobs = recorder.sampled(reply) if asked.logprobs else None
    for event in wire.chat_chunks(
        reply, include_usage=asked.include_usage, token_logprobs=logprobs, sent=sent or None, **head
    ):
        yield event


def _failed(error: Exception) -> Response:
    if isinstance(error, ModelCallFailed) and error.blame != "policy":
        return error_response(503, str(error), "server_error")
    return error_response(400, str(error), "invalid_request_error")
