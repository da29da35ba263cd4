"""An environment as an OpenEnv server: one episode after another on each WebSocket; schemas, metadata and health by HTTP.

An action is an assistant message, an observation the messages that came since the last one; the reward comes when the
episode is over, from the environment's own scorers. A rollout that failed through no fault of the policy is an error,
never a reward of 0. Left out: POST /reset and /step, which know no session, and MCP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ludus.errors import RolloutError, UsageError
from ludus.serve.episode import Episode, Turn
from ludus.serve.floor import Floor
from ludus.serve.openenv_messages import Action, Observation, ResetRequest, State, error_of, reply_of
from ludus.serve.tasks import TaskRoutes

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
HTTP = {
    "/health": "whether the server is up",
    "/metadata": "what the environment is",
    "/schema": "JSON schemas of action, observation and state",
    "/list_environments": "the name under which tasks are listed",
}
PATHS = ", ".join(["WebSocket /ws", *(f"GET {path}" for path in HTTP)])


def make_app(floor: Floor) -> Starlette:
    """The ASGI application that serves the environment of an open floor."""
    server = _Server(floor)
    return Starlette(
        routes=[
            WebSocketRoute("/ws", server.socket),
            Route("/health", server.health),
            Route("/openapi.json", server.openapi),
            Route("/mcp", server.mcp, methods=["POST"]),
            Route("/metadata", server.metadata),
            Route("/schema", server.schema),
            *TaskRoutes(floor).routes(),
        ],
        exception_handlers={HTTPException: _http_error},
    )


class _Server:
    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._active = 0

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    async def metadata(self, request: Request) -> Response:
        ref = self._floor.env.describe()
        return JSONResponse({"name": self._floor.name, "description": self._floor.about, "version": ref.version})

    async def schema(self, request: Request) -> Response:
        models: dict[str, type[BaseModel]] = {"action": Action, "observation": Observation, "state": State}
        return JSONResponse({name: model.model_json_schema() for name, model in models.items()})

    async def openapi(self, request: Request) -> Response:
        """The paths, as far as OpenEnv's own validation looks at them."""
        paths = {path: {"get": {"responses": {"200": {"description": what}}}} for path, what in HTTP.items()}
        info = {"title": self._floor.name, "version": self._floor.env.describe().version or "0"}
        return JSONResponse({"openapi": "3.1.0", "info": info, "paths": paths})

    async def mcp(self, request: Request) -> Response:
        """Tools belong to an episode, so that they are called over its WebSocket."""
        error = {"code": -32601, "message": "MCP is not spoken here: the tools are those of an episode, over /ws"}
        return JSONResponse({"jsonrpc": "2.0", "error": error, "id": None})

    async def socket(self, socket: WebSocket) -> None:
        """All episodes of one client."""
        if socket.headers.get("origin"):  # only browsers send one: no page is to reach a server on its reader's machine
            await socket.close()
            return
        await socket.accept()
        if self._active >= self._floor.most:
            text = f"all {self._floor.most} sessions are taken"
            counts = {"active_sessions": self._active, "max_sessions": self._floor.most}
            await socket.send_text(json.dumps(error_of(text, "CAPACITY_REACHED", **counts)))
            await socket.close()
            return
        self._active += 1
        session = _Session(self._floor)
        try:
            await _converse(socket, session)
        except WebSocketDisconnect:
            pass
        finally:
            self._active -= 1
            await session.leave()


async def _converse(socket: WebSocket, session: _Session) -> None:
    """Answer message after message, watching for the client's leaving while the environment works."""
    coming = asyncio.create_task(_receive(socket))
    try:
        while (text := await coming) is not None:
            coming = asyncio.create_task(_receive(socket))
            answer = await _unless_gone(session.answer(text), coming)
            if answer is None:
                return await socket.close()
            await socket.send_text(json.dumps(answer))
    finally:
        coming.cancel()


async def _receive(socket: WebSocket) -> str | None:
    """The next message as text; None when the client has gone."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text: str | None = message.get("text")
    return message["bytes"].decode("utf-8", "replace") if text is None else text


async def _unless_gone(work: Coroutine[Any, Any, ResultT], coming: asyncio.Task[str | None]) -> ResultT:
    """The work's result. Raises WebSocketDisconnect, the work cancelled, where the client goes first."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait([working, coming], return_when=asyncio.FIRST_COMPLETED)
        if coming.done() and not working.done() and coming.result() is None:
            raise WebSocketDisconnect
        return await working
    finally:
        if not working.done():
            working.cancel()
            await asyncio.wait([working])


class _Session:
    """One client's episodes, one at a time."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._episode: Episode | None = None
        self._state = State()

    async def answer(self, text: str) -> dict[str, Any] | None:
        """The answer to one message; None to "close". Never raises for what a client may send."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            return error_of(f"the message is not JSON: {error}", "INVALID_JSON")
        if not isinstance(message, dict) or not isinstance(message.get("data", {}), dict):
            return error_of('expected an object such as {"type": "reset", "data": {}}', "VALIDATION_ERROR")
        kind, data = message.get("type"), message.get("data", {})
        if kind == "close":
            return None
        if kind not in ("reset", "step", "state"):
            return error_of(f"unknown type {str(kind)[:80]!r}: expected reset, step, state or close", "UNKNOWN_TYPE")
        try:
            if kind == "state":
                return {"type": "state", "data": self._state.model_dump()}
            return {"type": "observation", "data": await (self._reset(data) if kind == "reset" else self._step(data))}
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            return error_of("the data is not valid", "VALIDATION_ERROR", errors=errors)
        except UsageError as error:
            return error_of(str(error), "VALIDATION_ERROR" if kind == "reset" else "EXECUTION_ERROR")
        except RolloutError as error:
            return error_of(str(error), "EXECUTION_ERROR")
        except Exception as error:  # noqa: BLE001 - the session goes on, and so do the others
            log.warning("%s failed a client: %s: %s", self._floor.name, type(error).__name__, error)
            return error_of(f"{type(error).__name__}: {error}", "EXECUTION_ERROR")

    async def leave(self) -> None:
        """End the episode, if there is one."""
        episode, self._episode = self._episode, None
        if episode is not None:
            await self._floor.leave(episode)

    async def _reset(self, data: dict[str, Any]) -> dict[str, Any]:
        asked = ResetRequest.model_validate(data)
        await self.leave()
        split, seed = asked.split or self._floor.split, secrets.randbits(31) if asked.seed is None else asked.seed
        which = asked.index if asked.task is None else asked.task
        task = await self._floor.task(split, which, seed)
        self._episode, turn = await self._floor.begin(task, split, seed)
        episode_id = asked.episode_id or self._episode.id
        self._state = State(episode_id=episode_id, split=split, task=task.id, seed=seed)
        return await self._observation(turn)

    async def _step(self, data: dict[str, Any]) -> dict[str, Any]:
        action = Action.model_validate(data)
        if self._episode is None:
            raise UsageError("there is no episode: reset first")
        turn = await self._episode.reply(reply_of(action, self._state.step_count))
        self._state.step_count += 1
        return await self._observation(turn)

    async def _observation(self, turn: Turn) -> dict[str, Any]:
        observed = Observation(messages=turn.messages, continues=turn.continues, tools=turn.tools, role=turn.role)
        if turn.rollout is None:
            return {"observation": observed.model_dump(), "reward": None, "done": False}
        await self.leave()
        observed.stop, observed.metrics = turn.rollout.stop, turn.rollout.metrics
        return {"observation": observed.model_dump(), "reward": turn.rollout.reward, "done": True}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # it is registered for these alone
    text = f"{request.method} {request.url.path}: {error.detail}; there are: {PATHS}"
    return JSONResponse({"detail": text}, status_code=error.status_code)
