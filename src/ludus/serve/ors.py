"""An environment as a server of the Open Reward Standard: tasks by HTTP, an episode for each session, tools that act.

The reward comes with the result of the last call, from the environment's own scorers. A rollout that failed through no
fault of the policy is an error of its call. A call whose stream broke off can be taken up again by the name of its task.
Sessions end when they are deleted, or have given no sign of life for `STALE_S`. Left out: secrets, and redirects to a
default environment.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ludus.errors import LudusError, UsageError
from ludus.serve import ors_messages as messages
from ludus.serve.episode import Episode, Turn
from ludus.serve.floor import Floor
from ludus.serve.tasks import TaskRoutes, body_of

STALE_S = 900.0
"""Without a sign of life, after which a session ends."""
BEAT_S = 10.0
"""Between signs of life on an open stream."""


@dataclass
class _Session:
    starting: asyncio.Task[tuple[Episode, Turn]]
    alive: float = field(default_factory=time.monotonic)
    turn: Turn | None = None
    calls: dict[str, asyncio.Task[dict[str, Any]]] = field(default_factory=dict)
    """By the name of their task."""
    num_calls: int = 0
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)


def make_app(floor: Floor, stale_s: float = STALE_S) -> Starlette:
    """The ASGI application that serves the environment of an open floor."""
    server = _Server(floor, stale_s)
    name = floor.name
    return Starlette(
        routes=[
            Route("/health", server.health),
            Route("/create_session", server.create_session, methods=["POST"]),
            Route("/delete_session", server.delete, methods=["POST"]),
            Route("/create", server.create, methods=["POST"]),
            Route("/delete", server.delete, methods=["POST"]),
            Route("/ping", server.ping, methods=["POST"]),
            *server.tasks.routes(),
            Route(f"/{name}/tools", server.tools),
            Route(f"/{name}/prompt", server.prompt),
            Route(f"/{name}/task_tools", server.task_tools),
            Route(f"/{name}/call", server.call, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _http_error, LudusError: _ludus_error},
        lifespan=server.lifespan,
    )


class _Server:
    def __init__(self, floor: Floor, stale_s: float) -> None:
        self._floor, self._stale_s = floor, stale_s
        self.tasks = TaskRoutes(floor)
        self._sessions: dict[str, _Session] = {}

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Sessions that nobody pings any more are ended; at the end, all of them."""
        reaping = asyncio.create_task(self._reap())
        try:
            yield
        finally:
            reaping.cancel()
            await asyncio.gather(*map(self._delete, list(self._sessions)))

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def tools(self, request: Request) -> Response:
        return JSONResponse(messages.tools_of([tool.schema for tool in self._floor.env.make_tools().values()]))

    async def create_session(self, request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield _event("task_id", secrets.token_hex(16))
            yield _event("end", "")

        return _stream(events())

    async def create(self, request: Request) -> Response:
        sid, asked = _sid(request), await body_of(request, messages.Create)
        if (asked.env_name or self._floor.name).lower() != self._floor.name:
            raise HTTPException(404, f"unknown environment {asked.env_name!r}")
        if asked.secrets:
            raise HTTPException(400, "the environment takes no secrets")
        spec = asked.task_spec or {}
        split = str(spec.get("split", asked.split))
        task = await (self._floor.task(split, spec.get("id")) if spec.get("id") else self.tasks.at(split, asked.index))
        if sid in self._sessions:
            raise HTTPException(400, "Session already exists")
        if len(self._sessions) >= self._floor.most:
            raise HTTPException(503, f"all {self._floor.most} sessions are taken")
        self._sessions[sid] = _Session(asyncio.create_task(self._floor.begin(task, split)))
        return JSONResponse({"sid": sid})

    async def delete(self, request: Request) -> Response:
        await self._delete(_sid(request))
        return JSONResponse({"sid": _sid(request)})

    async def ping(self, request: Request) -> Response:
        self._session(request)
        return JSONResponse({"status": "ok"})

    async def prompt(self, request: Request) -> Response:
        _, first = await self._begun(self._session(request))
        return JSONResponse(messages.blocks_of(first.messages))

    async def task_tools(self, request: Request) -> Response:
        session = self._session(request)
        await self._begun(session)
        return JSONResponse(messages.tools_of(session.turn.tools if session.turn else []))

    async def call(self, request: Request) -> Response:
        session, asked = self._session(request), await body_of(request, messages.ToolCall)
        if asked.task_id is None:
            await self._begun(session)
            # whoever calls again has what came before: nobody will take that up again
            session.calls = {name: task for name, task in session.calls.items() if not task.done()}
            asked.task_id = secrets.token_hex(16)
            session.calls[asked.task_id] = asyncio.create_task(self._call(session, asked))
        return _stream(_follow(session.calls.get(asked.task_id), asked.task_id))

    async def _call(self, session: _Session, call: messages.ToolCall) -> dict[str, Any]:
        async with session.one_at_a_time:
            episode, _ = await self._begun(session)
            assert session.turn is not None  # it has begun
            if session.turn.rollout is not None:
                return {"ok": False, "error": "the episode is over"}
            try:
                reply = messages.reply_of(call, session.turn.tools, session.num_calls)
            except UsageError as error:
                return {"ok": False, "error": str(error)}
            session.num_calls += 1
            session.turn = await episode.reply(reply)
            return {"ok": True, "output": messages.output_of(session.turn)}

    async def _begun(self, session: _Session) -> tuple[Episode, Turn]:
        episode, first = await asyncio.shield(session.starting)
        session.turn = session.turn or first
        return episode, first

    def _session(self, request: Request) -> _Session:
        session = self._sessions.get(_sid(request))
        if session is None:
            raise HTTPException(404, "Active environment not found")
        session.alive = time.monotonic()
        return session

    async def _delete(self, sid: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        tasks: list[asyncio.Task[Any]] = [session.starting, *session.calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if not session.starting.cancelled() and session.starting.exception() is None:
            await self._floor.leave(session.starting.result()[0])

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(self._stale_s / 100)
            now = time.monotonic()
            await asyncio.gather(
                *(self._delete(sid) for sid, s in list(self._sessions.items()) if now - s.alive > self._stale_s)
            )


async def _follow(working: asyncio.Task[dict[str, Any]] | None, name: str) -> AsyncIterator[bytes]:
    """The events of a call, which goes on when nobody listens any more."""
    if working is None:
        yield _event("error", "unknown task_id")
        return
    yield _event("task_id", name)
    while not (await asyncio.wait([working], timeout=BEAT_S))[0]:
        yield b": still at it\r\n\r\n"
    if working.cancelled():
        yield _event("error", "the session was deleted")
    elif error := working.exception():
        yield _event("error", " ".join(f"{type(error).__name__}: {error}".split()))
    else:
        *chunks, last = messages.pieces(json.dumps(working.result()))
        for chunk in chunks:
            yield _event("chunk", chunk)
        yield _event("end", last)


def _event(kind: str, data: str) -> bytes:
    return f"event: {kind}\r\ndata: {data}\r\n\r\n".encode()


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _sid(request: Request) -> str:
    sid = request.headers.get("X-Session-ID", "").strip()
    if not sid:
        raise HTTPException(400, "X-Session-ID header is required")
    return sid


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # it is registered for these alone
    return JSONResponse({"detail": error.detail}, status_code=error.status_code)


async def _ludus_error(request: Request, error: Exception) -> Response:
    """What was asked wrongly is the client's, a rollout that failed the environment's."""
    return JSONResponse({"detail": str(error)}, status_code=400 if isinstance(error, UsageError) else 500)
