"""A server for one model: the protocols of a rollout's address, raw completions, models, health.

One model is served, so a request's `model` is not looked at; the answer says which it was. Each request is recorded by
a `Recorder` of its own, which is what frees the engine's caches when the answer has gone. Left out: keys and quotas
(put a proxy in front), several models, batches.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ludus.errors import ModelCallFailed
from ludus.recording import wire
from ludus.recording.apis.api import Caller
from ludus.recording.backend import Backend, TokenBackend
from ludus.recording.gateway import APIS, COUNT_TOKENS, route
from ludus.recording.recorder import Recorder
from ludus.serve.completions import complete, error_response
from ludus.types import MAIN_ROLE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

SPOKEN = (*APIS, COUNT_TOKENS)
PATHS = ", ".join(f"POST /v1/{path}" for path in (*SPOKEN, "completions")) + ", GET /v1/models, GET /health"


def make_app(backend: Backend) -> Starlette:
    """The ASGI application that answers for a model."""
    model = _Model(backend)
    return Starlette(
        routes=[
            *(Route(f"/v1/{path}", model.speak, methods=["POST"]) for path in SPOKEN),
            Route("/v1/completions", model.completions, methods=["POST"]),
            Route("/v1/models", model.models),
            Route("/health", model.health),
        ],
        exception_handlers={HTTPException: _http_error},
    )


class _Model:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def speak(self, request: Request) -> Response:
        return _Answered(request.url.path.removeprefix("/v1/"), self._recorder())

    async def completions(self, request: Request) -> Response:
        if problem := await _problem(request):
            return problem
        if not isinstance(self._backend, TokenBackend):
            why = f"{self._backend.name} speaks messages, not tokens; use /v1/chat/completions"
            return error_response(400, why, "invalid_request_error")
        return await complete(await request.json(), self._backend)

    async def models(self, request: Request) -> Response:
        return JSONResponse(wire.models_response([self._backend.name]))

    async def health(self, request: Request) -> Response:
        """Whether the model answers, shown by a token of it."""
        recorder, began = self._recorder(), time.perf_counter()
        try:
            await recorder.call(MAIN_ROLE, [{"role": "user", "content": "hi"}], overrides={"max_tokens": 1})
        except ModelCallFailed as error:
            return error_response(503, str(error), "server_error")
        finally:
            recorder.release()
        return JSONResponse(
            {"status": "ok", "model": self._backend.name, "token_s": round(time.perf_counter() - began, 4)}
        )

    def _recorder(self) -> Recorder:
        return Recorder({MAIN_ROLE: self._backend}, seed=secrets.randbits(63), session=f"http-{secrets.token_hex(8)}")


class _Answered(Response):
    """Answers by itself, and releases the recorder behind it, also where the client has gone."""

    def __init__(self, path: str, recorder: Recorder) -> None:
        self._path, self._recorder = path, recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = Caller(self._recorder, MAIN_ROLE, threads=None)
        try:
            await route(self._path, caller, scope["method"], receive, send)
        finally:
            self._recorder.release()


async def _problem(request: Request) -> Response | None:
    """Why the body can't be read at all."""
    try:
        body: Any = await request.json()
    except (ValueError, RecursionError) as error:
        return error_response(400, f"the body is not JSON: {error}", "invalid_request_error")
    if not isinstance(body, dict):
        return error_response(400, f"expected a JSON object, got {str(body)[:80]}", "invalid_request_error")
    return None


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # it is registered for these alone
    text = f"{request.method} {request.url.path}: {error.detail}; there are: {PATHS}"
    return error_response(error.status_code, text, "invalid_request_error")
