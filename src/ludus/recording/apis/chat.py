"""OpenAI's chat completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from ludus.recording import wire
from ludus.recording.apis.api import Answer, Caller, Kind, Request
from ludus.types import Reply

FIELDS: dict[Kind, str] = {"thought": "reasoning_content", "text": "content"}


class Chat:
    """POST /v1/chat/completions."""

    def read(self, body: Mapping[str, Any], caller: Caller) -> tuple[Request, Answer]:
        """See `Api.read`."""
        asked = wire.parse_chat(body)
        request = Request(
            messages=asked.messages,
            tools=asked.tools,
            sampling=asked.sampling,
            stream=asked.stream,
            logprobs=asked.logprobs,
        )
        return request, _ChatAnswer(caller.model, asked.include_usage)

    def error(self, status: int, message: str) -> dict[str, Any]:
        """OpenAI's error body."""
        return openai_error(status, message)


def openai_error(status: int, message: str) -> dict[str, Any]:
    """A refusal or failure as OpenAI's clients expect it."""
    kinds = {401: "authentication_error", 404: "invalid_request_error", 503: "server_error"}
    return wire.error_body(message, kinds.get(status, "invalid_request_error"))


class _ChatAnswer:
    def __init__(self, model: str, include_usage: bool) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(8)}", "model": model, "created": int(time.time()),
        }  # fmt: skip
        self._include_usage = include_usage
        self._sent: dict[Kind, int] = {"thought": 0, "text": 0}

    def whole(self, reply: Reply, logprobs: wire.TokenLogprobs | None) -> dict[str, Any]:
        return wire.chat_response(reply, token_logprobs=logprobs, **self._head)

    def piece(self, kind: Kind, text: str) -> bytes:
        first = not any(self._sent.values())
        self._sent[kind] += len(text)
        return wire.text_chunk(text, first=first, field=FIELDS[kind], **self._head)

    def end(self, reply: Reply, logprobs: wire.TokenLogprobs | None) -> bytes:
        begun = any(self._sent.values())
        chunks = wire.chat_chunks(
            reply,
            include_usage=self._include_usage,
            token_logprobs=logprobs,
            sent=self._sent["text"] if begun else None,
            thought=self._sent["thought"],
            **self._head,
        )
        return b"".join(chunks)

    def failed(self, message: str) -> bytes:
        return wire.error_event(message)
