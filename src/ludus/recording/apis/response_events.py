"""A reply as OpenAI's responses have it: items (reasoning, a message, function calls), whole or event by event."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from ludus.recording.apis.api import Kind, event
from ludus.recording.wire import TokenLogprobs
from ludus.types import Message, Reply, Usage

_PART: dict[Kind, str] = {"thought": "reasoning_text", "text": "output_text"}
_ECHOED = ("instructions", "metadata", "previous_response_id", "temperature", "top_p", "max_output_tokens", "user")


class ResponseAnswer:
    """Says one reply.

    Args:
        body: the request, parts of which are echoed.
        model: the name of the model that answers.
        messages: the conversation without the instructions.
        threads: where the conversation is kept for those who go on from it, if anywhere.
    """

    def __init__(
        self, body: Mapping[str, Any], model: str, messages: list[Message], threads: dict[str, list[Message]] | None
    ) -> None:
        self._id, self._created = f"resp_{secrets.token_hex(16)}", int(time.time())
        self._body, self._model, self._messages, self._threads = body, model, messages, threads
        self._items: list[dict[str, Any]] = []
        self._open: Kind | None = None
        self._text = ""
        """Of the item that is open."""
        self._sent: dict[Kind, int] = {"thought": 0, "text": 0}
        self._number = 0

    def whole(self, reply: Reply, logprobs: TokenLogprobs | None) -> dict[str, Any]:
        """See `Answer.whole`."""
        items = [_item("thought", reply.reasoning)] if reply.reasoning else []
        calls = reply.message.get("tool_calls") or []
        if reply.text or not calls:
            items.append(_item("text", reply.text, logprobs=logprobs))
        return self._ended(reply, [*items, *(_call_item(call) for call in calls)])

    def piece(self, kind: Kind, text: str) -> bytes:
        """See `Answer.piece`."""
        events = b""
        if self._open != kind:
            events = self._begin() + self._close(None) + self._start(kind)
        self._sent[kind] += len(text)
        self._text += text
        name = "response.reasoning_text.delta" if kind == "thought" else "response.output_text.delta"
        return events + self._event(name, **self._at(), delta=text, **({"logprobs": []} if kind == "text" else {}))

    def end(self, reply: Reply, logprobs: TokenLogprobs | None) -> bytes:
        """See `Answer.end`."""
        events = self._begin()
        if late := reply.reasoning[self._sent["thought"] :]:
            events += self.piece("thought", late)
        late, calls = reply.text[self._sent["text"] :], reply.message.get("tool_calls") or []
        if late or not (calls or self._sent["text"]):
            events += self.piece("text", late)
        events += self._close(logprobs)
        for call in calls:
            events += self._call(_call_item(call))
        response = self._ended(reply, self._items)
        return events + self._event(f"response.{response['status']}", response=response)

    def failed(self, message: str) -> bytes:
        """See `Answer.failed`."""
        error = {"code": "server_error", "message": message}
        events = self._begin() + self._event("error", **error, param=None)
        response = {**self._response("failed", self._items, None), "error": error}
        return events + self._event("response.failed", response=response)

    # --- events ---------------------------------------------------------------------------------------------------

    def _event(self, type: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": type, "sequence_number": number, **fields})

    def _begin(self) -> bytes:
        if self._number:
            return b""
        response = self._response("in_progress", [], None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _at(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, "content_index": 0}

    def _start(self, kind: Kind) -> bytes:
        self._open, self._text = kind, ""
        begun = {**_item(kind, ""), "status": "in_progress", "content": []}
        self._items.append(begun)
        added = self._event("response.output_item.added", item=begun, output_index=len(self._items) - 1)
        return added + self._event("response.content_part.added", **self._at(), part=_part(kind, "", None))

    def _close(self, logprobs: TokenLogprobs | None) -> bytes:
        kind, self._open = self._open, None
        if kind is None:
            return b""
        done = {**_item(kind, self._text, logprobs=logprobs), "id": self._items[-1]["id"]}
        self._items[-1] = done
        name = "response.reasoning_text.done" if kind == "thought" else "response.output_text.done"
        extra = {"logprobs": _logprobs(logprobs)} if kind == "text" else {}
        events = self._event(name, **self._at(), text=self._text, **extra)
        events += self._event("response.content_part.done", **self._at(), part=done["content"][0])
        return events + self._event("response.output_item.done", item=done, output_index=len(self._items) - 1)

    def _call(self, item: dict[str, Any]) -> bytes:
        self._items.append(item)
        at = {"item_id": item["id"], "output_index": len(self._items) - 1}
        begun = {**item, "status": "in_progress", "arguments": ""}
        events = self._event("response.output_item.added", item=begun, output_index=at["output_index"])
        events += self._event("response.function_call_arguments.delta", **at, delta=item["arguments"])
        events += self._event("response.function_call_arguments.done", **at, arguments=item["arguments"])
        return events + self._event("response.output_item.done", item=item, output_index=at["output_index"])

    # --- objects --------------------------------------------------------------------------------------------------

    def _ended(self, reply: Reply, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The finished response; whoever goes on from it will find the conversation."""
        if self._threads is not None:
            self._threads[self._id] = [*self._messages, reply.message]
        cut = reply.finish_reason == "length"
        response = self._response("incomplete" if cut else "completed", items, reply.usage)
        return {**response, "incomplete_details": {"reason": "max_output_tokens"} if cut else None}

    def _response(self, status: str, items: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        return {
            "id": self._id, "object": "response", "created_at": self._created, "status": status, "error": None,
            "incomplete_details": None, "model": self._model, "output": items, "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": self._body.get("tools") or [],
            "usage": None if usage is None else _usage(usage),
            **{name: self._body.get(name) for name in _ECHOED},
        }  # fmt: skip


def _item(kind: Kind, text: str, *, logprobs: TokenLogprobs | None = None) -> dict[str, Any]:
    part = _part(kind, text, logprobs)
    if kind == "thought":
        return {"id": f"rs_{secrets.token_hex(12)}", "type": "reasoning", "summary": [], "content": [part]}
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "status": "completed"}
    return {**head, "content": [part]}


def _part(kind: Kind, text: str, logprobs: TokenLogprobs | None) -> dict[str, Any]:
    part = {"type": _PART[kind], "text": text}
    return part if kind == "thought" else {**part, "annotations": [], "logprobs": _logprobs(logprobs)}


def _call_item(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {
        "id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "status": "completed",
        "call_id": call.get("id") or "", "name": function["name"], "arguments": function.get("arguments") or "{}",
    }  # fmt: skip


def _logprobs(tokens: TokenLogprobs | None) -> list[dict[str, Any]]:
    return [
        {"token": token, "logprob": value, "bytes": list(token.encode(errors="replace")), "top_logprobs": []}
        for token, value in tokens or ()
    ]


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
