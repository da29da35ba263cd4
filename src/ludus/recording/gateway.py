"""An address for every rollout: one server on the loopback interface, one secret key a rollout and role.

It speaks OpenAI's chat completions and responses and Anthropic's messages. Everything that comes through it is recorded
like a call in process.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any

from ludus.authoring.subagents import NAME
from ludus.errors import UsageError
from ludus.recording import wire
from ludus.recording.apis.api import Api, Caller
from ludus.recording.apis.chat import Chat
from ludus.recording.apis.messages import Messages, read_prompt
from ludus.recording.apis.responses import Responses
from ludus.recording.backend import TokenBackend
from ludus.recording.endpoint import answer, read_body, send_json
from ludus.recording.recorder import Recorder
from ludus.redaction import KEY_PREFIX
from ludus.types import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.types import Message as Event

APIS: dict[str, Api] = {"chat/completions": Chat(), "responses": Responses(), "messages": Messages()}
"""What stands behind /v1/ of an address."""
COUNT_TOKENS, MODELS = "messages/count_tokens", "models"
PATHS = ", ".join(f"POST /v1/{path}" for path in (*APIS, COUNT_TOKENS)) + f", GET /v1/{MODELS}"

_STRANGER = "this address and key belong to no running rollout"
_OVER = "the rollout that this address belongs to is over"


class Gateway:
    """Addresses of the rollouts of one event loop: the one it is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = threading.Lock()
        self._admitted: dict[str, tuple[Recorder, str, dict[str, list[Message]]]] = {}
        self._calls: dict[str, set[asyncio.Task[None]]] = {}
        """By key, the calls that are being answered."""
        self._port = 0
        self._serving: asyncio.Task[None] | None = None
        self._server: Any = None
        self._http: Any = None

    def admit(self, recorder: Recorder, role: str) -> str:
        """A new secret key for a rollout and role."""
        key = KEY_PREFIX + secrets.token_urlsafe(18)
        self._admitted[key] = (recorder, role, {})
        return key

    def dismiss(self, key: str) -> None:
        """The key is good no longer, and what is being sampled for it nobody will read."""
        self._admitted.pop(key, None)
        self.interrupt(key)

    def interrupt(self, key: str) -> None:
        """End the calls under way: whoever asked has gone."""
        for call in self._calls.pop(key, ()):
            call.cancel()

    def address(self, key: str, agent: str = "") -> str:
        """Base URL of a key. Starts the server if there is none yet; from any thread, as agents may be synchronous."""
        with self._listening:
            if not self._port:
                self._listen()
        return f"http://127.0.0.1:{self._port}{_prefix(key, agent)}"

    def client(self, key: str, agent: str = "") -> AsyncOpenAI:
        """An OpenAI client that calls the application in process."""
        import httpx2
        from openai import AsyncOpenAI

        if self._http is None:
            transport = httpx2.ASGITransport(self.app())
            self._http = httpx2.AsyncClient(transport=transport, timeout=None)
        url = f"http://ludus{_prefix(key, agent)}"
        return AsyncOpenAI(base_url=url, api_key=key, http_client=self._http, max_retries=0, timeout=None)

    def app(self) -> ASGIApp:
        """The ASGI application."""
        return self._answer

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
        config = uvicorn.Config(
            self.app(), interface="asgi3", log_level="warning", access_log=False, lifespan="off", ws="none",
            proxy_headers=False, server_header=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None
        self._loop.call_soon_threadsafe(self._serve, bound)

    def _serve(self, bound: socket.socket) -> None:
        self._serving = self._loop.create_task(self._server._serve([bound]))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Its path is /KEY/v1/..., or /KEY/NAME/v1/... for a sub-agent of that name."""
        if scope["type"] != "http":
            return
        prefix, _, path = scope["path"].partition("/v1/")
        key, _, agent = prefix.removeprefix("/").partition("/")
        api = APIS["messages"] if path.startswith("messages") else APIS.get(path, APIS["chat/completions"])
        admitted = self._admitted.get(key) if _key_of(scope) == key else None
        if admitted is None or (agent and not NAME.fullmatch(agent)):
            await send_json(send, api.error(401, _STRANGER), 401)
            return
        recorder, role, threads = admitted
        begun = False

        async def tell(message: Event) -> None:
            nonlocal begun
            begun = True
            await send(message)

        call = asyncio.create_task(route(path, Caller(recorder, role, agent, threads), scope["method"], receive, tell))
        self._calls.setdefault(key, set()).add(call)
        try:
            await call
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if asking is not None and asking.cancelling():
                call.cancel()
                raise
            if not begun:
                await send_json(send, api.error(401, _OVER), 401)
        finally:
            self._calls.get(key, set()).discard(call)


async def route(path: str, caller: Caller, method: str, receive: Receive, send: Send) -> None:
    """Answer what stands behind /v1/."""
    if path == MODELS and method == "GET":
        await send_json(send, wire.models_response([caller.model]))
    elif path in APIS and method == "POST":
        await answer(APIS[path], caller, receive, send)
    elif path == COUNT_TOKENS and method == "POST":
        await _count_tokens(caller, receive, send)
    else:
        known = path in APIS or path in (COUNT_TOKENS, MODELS)
        status, api = 405 if known else 404, APIS["messages" if path.startswith("messages") else "chat/completions"]
        await send_json(send, api.error(status, f"{method} /v1/{path}: there are {PATHS}"), status)


async def _count_tokens(caller: Caller, receive: Receive, send: Send) -> None:
    """How many tokens a conversation would be, rendered anew."""
    api, backend = APIS["messages"], caller.recorder.backends[caller.role]
    try:
        messages, tools = read_prompt(await read_body(receive))
        if not isinstance(backend, TokenBackend):
            raise UsageError(f"{backend.name} speaks messages: its tokens are not known here")
        count = len(backend.renderer.render(messages, tools))
    except UsageError as error:
        await send_json(send, api.error(400, str(error)), 400)
    except ConnectionError:
        return
    else:
        await send_json(send, {"input_tokens": count})


def _prefix(key: str, agent: str) -> str:
    return f"/{key}/{agent}/v1" if agent else f"/{key}/v1"


def _key_of(scope: Scope) -> str:
    """The key in a request's headers: OpenAI's clients say it in one of them, Anthropic's in either."""
    headers = dict(scope["headers"])
    bearer = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
    key: bytes = bearer or headers.get(b"x-api-key", b"").strip()
    return key.decode("latin-1")
