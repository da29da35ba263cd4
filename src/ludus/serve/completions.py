"""/v1/completions: text or token ids continued as they are, without a chat template."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from ludus.errors import ModelCallFailed, UsageError
from ludus.protocols import SampleChunk, SampleRequest, Tokenizer
from ludus.recording import wire
from ludus.recording.backend import TokenBackend
from ludus.types import FinishReason, Sampling, Usage

DEFAULT_MAX_TOKENS = 16
"""OpenAI's for this endpoint."""


async def complete(body: Mapping[str, Any], backend: TokenBackend) -> Response:
    """Answer one request, streaming or not."""
    try:
        asked = wire.parse_completion(body)
    except UsageError as error:
        return error_response(400, str(error), "invalid_request_error")
    prompt = backend.renderer.tokenizer.encode(asked.prompt) if isinstance(asked.prompt, str) else asked.prompt
    stops = tuple(backend.renderer.stop_token_ids)
    request = SampleRequest(
        tokens=prompt,
        sampling=Sampling(**{"max_tokens": DEFAULT_MAX_TOKENS, "stop_token_ids": stops, **asked.sampling}),
        weights=backend.weights,
        session=f"http-{secrets.token_hex(8)}",
        stream=asked.stream,
    )
    head: dict[str, Any] = {"id": f"cmpl-{secrets.token_hex(8)}", "model": backend.name, "created": int(time.time())}
    continuation = Continuation(backend, request)
    chunks = continuation.texts()
    try:
        first = await anext(chunks)  # what is wrong with a request shows here, when the status can still say so
    except (ModelCallFailed, UsageError) as error:
        return _failed(error)
    if asked.stream:
        return StreamingResponse(
            _stream(continuation, first, chunks, head, asked), media_type="text/event-stream"
        )  # fmt: skip
    try:
        text = first + "".join([piece async for piece in chunks])
    except (ModelCallFailed, UsageError) as error:
        return _failed(error)
    logprobs = continuation.logprobs if asked.logprobs else None
    return JSONResponse(
        wire.completion_response(text, continuation.finish, continuation.usage, token_logprobs=logprobs, **head)
    )


class Continuation:
    """What is sampled after a prompt, as text.

    Attributes:
        finish: why it ended, once it has.
        logprobs: text and log-probability of each sampled token so far.
    """

    def __init__(self, backend: TokenBackend, request: SampleRequest) -> None:
        self._backend, self._request = backend, request
        self._text = StreamedText(backend.renderer.tokenizer, backend.renderer.stop_token_ids, request.sampling.stop)
        self.finish: FinishReason = "stop"
        self.logprobs: list[tuple[str, float]] = []

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(len(self._request.tokens), len(self.logprobs))

    async def texts(self) -> AsyncGenerator[str]:
        """A piece of text for each chunk of tokens, which may be "". Raises ModelCallFailed, UsageError."""
        sampler, tokenizer = self._backend.sampler, self._backend.renderer.tokenizer
        try:
            async with aclosing(sampler.sample(self._request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    self.logprobs += _with_text(tokenizer, chunk)
                    self.finish = chunk.finish_reason or self.finish
                    yield self._text.feed(chunk.tokens, last=chunk.finish_reason is not None)
        finally:
            sampler.release(self._request.session)


class StreamedText:
    """Tokens as text that will not change any more: no half characters, no stop strings, no end token.

    Args:
        tokenizer: decodes.
        stop_ids: tokens that are not text.
        stop: strings before which the text ends.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int], stop: tuple[str, ...]) -> None:
        self._tokenizer, self._stop_ids, self._stop = tokenizer, stop_ids, stop
        self._ids: list[int] = []
        self._sent = 0

    def feed(self, ids: list[int], *, last: bool) -> str:
        """The text that these ids add to what was given before; with the last ones, all that is left."""
        self._ids += [i for i in ids if i not in self._stop_ids]
        text = self._tokenizer.decode(self._ids)
        ends = [at for s in self._stop if (at := text.find(s)) >= 0]
        # an earlier one may have begun before the one that is whole
        end = min([*ends, len(text) if last else len(text) - self._undecided(text)])
        piece = text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _undecided(self, text: str) -> int:
        """Characters at the end that later tokens may turn into others, or into a stop string."""
        halves = len(text) - len(text.rstrip("\ufffd"))
        begun = [n for s in self._stop for n in range(1, len(s)) if text.endswith(s[:n])]
        return max([halves, *begun])


async def _stream(
    continuation: Continuation,
    first: str,
    rest: AsyncGenerator[str],
    head: dict[str, Any],
    asked: wire.CompletionRequest,
) -> AsyncIterator[bytes]:
    """Server-sent events, one a chunk of tokens; closing the stream cancels the sampling."""
    told = 0
    piece: str | None = first
    try:
        while piece is not None:
            logprobs, told = continuation.logprobs[told:], len(continuation.logprobs)
            if piece or asked.logprobs:
                yield _event(_chunk(piece, logprobs if asked.logprobs else None, head))
            piece = await anext(rest, None)
    except (ModelCallFailed, UsageError) as error:
        yield wire.error_event(str(error))
        return
    finally:
        await rest.aclose()
    for event in wire.completion_chunks(
        "", continuation.finish, continuation.usage, include_usage=asked.include_usage, **head
    ):
        yield event


def _chunk(text: str, logprobs: wire.TokenLogprobs | None, head: dict[str, Any]) -> dict[str, Any]:
    """A `text_completion` that goes on."""
    whole = wire.completion_response(text, "stop", Usage(), token_logprobs=logprobs, **head)
    whole["choices"][0]["finish_reason"] = None
    del whole["usage"]
    return whole


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _with_text(tokenizer: Tokenizer, chunk: SampleChunk) -> list[tuple[str, float]]:
    return [(tokenizer.decode([token]), logprob) for token, logprob in zip(chunk.tokens, chunk.logprobs, strict=True)]


def _failed(error: ModelCallFailed | UsageError) -> Response:
    if isinstance(error, ModelCallFailed) and error.blame != "policy":
        return error_response(503, str(error), "server_error")
    return error_response(400, str(error), "invalid_request_error")


def error_response(status: int, message: str, kind: str) -> Response:
    """An error as OpenAI's clients expect it."""
    return JSONResponse(wire.error_body(message, kind), status_code=status)
