"""One POST to a model's address, answered through a recorder: read, called, said, streaming or not.

Plain ASGI without a framework in between: a call costs little more than its JSON. A client that hangs up cancels its
call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from ludus.errors import ModelCallFailed, UsageError
from ludus.recording.apis.api import Answer, Api, Caller, Kind, Request
from ludus.recording.wire import decode, encode
from ludus.redaction import SECRETS
from ludus.types import Reply

if TYPE_CHECKING:
    from starlette.types import Receive, Send

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 2**20
"""Of a request: what answers is the process that trains, and what asks may have been written by a model."""

_JSON = [(b"content-type", b"application/json")]
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_Pieces = asyncio.Queue[tuple[Kind, str] | None]
_REFUSALS = (ModelCallFailed, UsageError, ValueError)
"""What a call is refused with, or fails with."""


class TooLarge(UsageError):
    """A body beyond `MAX_BODY_BYTES`."""


async def answer(api: Api, caller: Caller, receive: Receive, send: Send) -> None:
    """Read one request, call the model, send its answer."""
    try:
        request, says = api.read(await read_body(receive), caller)
    except UsageError as error:
        caller.recorder.refuse(str(error))
        status = 413 if isinstance(error, TooLarge) else 400
        return await send_json(send, api.error(status, SECRETS.hide(str(error))), status)
    except ConnectionError:
        return None  # the client has gone
    pieces: _Pieces | None = asyncio.Queue() if request.live else None
    call = asyncio.create_task(_call(caller, request, pieces))
    gone = asyncio.create_task(_gone(receive))
    gone.add_done_callback(lambda _: call.cancel())
    try:
        await _respond(api, caller, request, says, call, pieces, send)
    except asyncio.CancelledError:
        if not gone.done() or gone.cancelled():
            raise
    finally:
        call.cancel()
        gone.cancel()
        await asyncio.gather(call, gone, return_exceptions=True)


async def whole_answer(api: Api, caller: Caller, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answer a request that came by no socket, and never in pieces: status and body."""
    try:
        request, says = api.read(body, caller)
    except UsageError as error:
        caller.recorder.refuse(str(error))
        return 400, api.error(400, SECRETS.hide(str(error)))
    try:
        reply = await _call(caller, request, None)
    except _REFUSALS as error:
        return _refusal(api, error)
    return 200, says.whole(reply, _logprobs(caller, request, reply))


async def _gone(receive: Receive) -> None:
    """Returns when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive) -> dict[str, Any]:
    """The JSON object in a request's body. Raises UsageError, and ConnectionError where the client has gone."""
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("the client has gone")
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"the body has more than {MAX_BODY_BYTES:,} bytes")
    try:
        body = decode(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise UsageError(f"expected a JSON object, got {str(body)[:80]}")
    return body


async def send_json(send: Send, body: dict[str, Any], status: int = 200) -> None:
    """A whole response."""
    content = encode(body)
    headers = [*_JSON, (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _call(caller: Caller, request: Request, pieces: _Pieces | None) -> Reply:
    """The model's reply; `pieces` are told of it as it is sampled, and None at its end."""
    listening: dict[str, Any] = {}
    if pieces is not None:
        listening = {
            "on_text": lambda text: pieces.put_nowait(("text", text)),
            "on_thought": lambda text: pieces.put_nowait(("thought", text)),
        }
    front = caller.recorder.fronts.get((caller.role, caller.agent))
    try:
        if front is not None:
            return await front(request.messages, tools=request.tools, **request.sampling)
        return await caller.recorder.call(
            caller.role, request.messages, request.tools, request.sampling, agent=caller.agent, **listening
        )
    except _REFUSALS:
        raise
    except Exception as error:
        log.exception("a call of %s failed", caller.model)
        caller.recorder.failed = ModelCallFailed(f"{caller.model} raised {type(error).__name__}: {error}")
        raise caller.recorder.failed from error
    finally:
        if pieces is not None:
            pieces.put_nowait(None)


def _refusal(api: Api, error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body of a call that was not answered."""
    status = 503 if isinstance(error, ModelCallFailed) and error.blame != "policy" else 400
    return status, api.error(status, SECRETS.hide(str(error)))


async def _respond(
    api: Api,
    caller: Caller,
    request: Request,
    says: Answer,
    call: asyncio.Task[Reply],
    pieces: _Pieces | None,
    send: Send,
) -> None:
    # What is wrong with a request shows before its first piece, when the status can still say so.
    first = await pieces.get() if pieces is not None else None
    if first is None:
        try:
            reply = await call
        except _REFUSALS as error:
            status, body = _refusal(api, error)
            return await send_json(send, body, status)
    if not request.stream:
        return await send_json(send, says.whole(reply, _logprobs(caller, request, reply)))
    await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
    if first is not None and pieces is not None:
        async for events in _live(says, first, pieces):
            await send({"type": "http.response.body", "body": events, "more_body": True})
    try:
        reply = await call
        last = says.end(reply, _logprobs(caller, request, reply))
    except _REFUSALS as error:
        last = says.failed(SECRETS.hide(str(error)))
    return await send({"type": "http.response.body", "body": last})


async def _live(says: Answer, first: tuple[Kind, str], pieces: _Pieces) -> AsyncIterator[bytes]:
    """The events of all pieces; those that wait already go out together."""
    piece: tuple[Kind, str] | None = first
    while piece is not None:
        events = says.piece(*piece)
        while not pieces.empty() and (piece := pieces.get_nowait()) is not None:
            events += says.piece(*piece)
        yield events
        if piece is not None:
            piece = await pieces.get()


def _logprobs(caller: Caller, request: Request, reply: Reply) -> list[tuple[str, float]] | None:
    return caller.recorder.sampled(reply) if request.logprobs else None
