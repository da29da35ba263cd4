"""Replies in OpenAI's words: whole, and as server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ludus.recording.wire.messages import encode
from ludus.types import FinishReason, Message, Reply, Usage

TokenLogprobs = Sequence[tuple[str, float]]
"""Text and log-probability of each sampled token."""


def chat_response(
    reply: Reply, *, id: str, model: str, created: int, token_logprobs: TokenLogprobs | None = None
) -> dict[str, Any]:
    """A `chat.completion` object. `created` is in seconds since the epoch."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "refusal": None, **_spoken(reply.message)},
        "finish_reason": _chat_finish(reply),
        "logprobs": _chat_logprobs(token_logprobs),
    }
    head = {"id": id, "object": "chat.completion", "created": created, "model": model}
    return {**head, "choices": [choice], "usage": _usage(reply.usage)}


def chat_chunks(
    reply: Reply,
    *,
    id: str,
    model: str,
    created: int,
    include_usage: bool = False,
    token_logprobs: TokenLogprobs | None = None,
    sent: int | None = None,
    thought: int = 0,
) -> Iterator[bytes]:
    """A finished reply as server-sent events: role, reasoning, text, tool calls, finish reason, usage, `[DONE]`.

    Args:
        reply: the whole reply.
        id: of the answer.
        model: its name.
        created: seconds since the epoch.
        include_usage: whether to end with the usage.
        token_logprobs: of the reply's tokens, if asked for.
        sent: characters of its text that `text_chunk` has sent already; None if not even the role has been.
        thought: characters of its reasoning that have been sent.
    """
    head = _chunk_head(id, model, created)
    spoken = _spoken(reply.message)
    if sent is None:
        yield _chunk(head, {"role": "assistant", "content": ""})
    if late := spoken.get("reasoning_content", "")[thought:]:
        yield _chunk(head, {"reasoning_content": late})
    rest = (spoken["content"] or "")[sent or 0 :]
    if rest or token_logprobs:
        yield _chunk(head, {"content": rest}, logprobs=_chat_logprobs(token_logprobs))
    for index, call in enumerate(spoken.get("tool_calls", ())):
        yield _chunk(head, {"tool_calls": [{"index": index, **call}]})
    yield _chunk(head, {}, finish_reason=_chat_finish(reply))
    if include_usage:
        yield _event({**head, "choices": [], "usage": _usage(reply.usage)})
    yield DONE


def text_chunk(piece: str, *, first: bool, id: str, model: str, created: int, field: str = "content") -> bytes:
    """The event of a piece of visible text, or of the reasoning; the first one names the role too."""
    delta = {"role": "assistant", field: piece} if first else {field: piece}
    return _chunk(_chunk_head(id, model, created), delta)


def error_event(message: str) -> bytes:
    """The event of a failure in mid-stream, after which the stream ends."""
    return _event(error_body(message, "server_error"))


def completion_response(
    text: str,
    finish_reason: FinishReason,
    usage: Usage,
    *,
    id: str,
    model: str,
    created: int,
    token_logprobs: TokenLogprobs | None = None,
) -> dict[str, Any]:
    """A `text_completion` object."""
    choice = {
        "index": 0,
        "text": text,
        "finish_reason": _finish(finish_reason),
        "logprobs": _completion_logprobs(token_logprobs),
    }
    head = {"id": id, "object": "text_completion", "created": created, "model": model}
    return {**head, "choices": [choice], "usage": _usage(usage)}


def completion_chunks(
    text: str,
    finish_reason: FinishReason,
    usage: Usage,
    *,
    id: str,
    model: str,
    created: int,
    include_usage: bool = False,
    token_logprobs: TokenLogprobs | None = None,
) -> Iterator[bytes]:
    """A finished completion as server-sent events: text with its finish reason, usage if asked for, `[DONE]`."""
    whole = completion_response(
        text, finish_reason, usage, id=id, model=model, created=created, token_logprobs=token_logprobs
    )
    totals = whole.pop("usage")
    yield _event({**whole, "usage": None} if include_usage else whole)
    if include_usage:
        yield _event({**whole, "choices": [], "usage": totals})
    yield DONE


def models_response(names: Iterable[str]) -> dict[str, Any]:
    """The list that /v1/models gives."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "ludus"} for name in names]
    return {"object": "list", "data": data}


def error_body(message: str, type: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """What a failed request is answered with."""
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


def _chunk_head(id: str, model: str, created: int) -> dict[str, Any]:
    return {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}


def _chunk(
    head: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return _event({**head, "choices": [choice]})


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + encode(body) + b"\n\n"


def _spoken(message: Message) -> dict[str, Any]:
    """The fields of an assistant message that say something; content is null beside tool calls, as OpenAI has it."""
    calls, thought = message.get("tool_calls"), message.get("reasoning_content")
    spoken: dict[str, Any] = {"content": message.get("content") or (None if calls else "")}
    if thought:
        spoken["reasoning_content"] = thought
    if calls:
        spoken["tool_calls"] = calls
    return spoken


def _chat_finish(reply: Reply) -> str:
    called = reply.finish_reason == "stop" and reply.message.get("tool_calls")
    return "tool_calls" if called else _finish(reply.finish_reason)


def _finish(reason: FinishReason) -> str:
    return "stop" if reason == "cancelled" else reason  # clients know no word for it


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _chat_logprobs(tokens: TokenLogprobs | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    content = [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []} for token, value in tokens
    ]
    return {"content": content, "refusal": None}


def _completion_logprobs(tokens: TokenLogprobs | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    offsets, offset = [], 0
    for token, _ in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": [token for token, _ in tokens],
        "token_logprobs": [value for _, value in tokens],
        "top_logprobs": None,
        "text_offset": offsets,
    }
