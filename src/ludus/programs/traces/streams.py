"""Logged answers that were streamed, put together again: chunks of chat completions, events of responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


def unpacked(value: Any) -> Any:
    """What text holds that is JSON or server-sent events, as many logs keep requests and answers; else the value."""
    if not isinstance(value, str):
        return value
    if value.lstrip()[:1] in ("{", "["):
        return _decode(value, value)
    if not value.startswith(("data:", "event:")):
        return value
    events = [line.removeprefix("data:").strip() for line in value.splitlines() if line.startswith("data:")]
    return [_decode(event, None) for event in events if event != "[DONE]"]


def put_together(chunks: list[Any]) -> list[Any] | None:
    """Messages or items that a stream gave; None where the list is none.

    The pieces of a call carry its place in `index`; those of other choices than the first are left out.
    """
    events = [chunk for chunk in chunks if isinstance(chunk, dict)]
    if any(str(event.get("type")).startswith("response.") for event in events):
        answers = [event["response"] for event in events if isinstance(event.get("response"), dict)]
        output = answers[-1].get("output") if answers else None
        return output if isinstance(output, list) else []
    if not any(chunk.get("object") == "chat.completion.chunk" or _delta(chunk) is not None for chunk in events):
        return None
    return [_message(filter(None, map(_delta, events)))]


def _delta(chunk: dict[str, Any]) -> dict[str, Any] | None:
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index") and isinstance(choice.get("delta"), dict):
            return choice["delta"]  # type: ignore[no-any-return]
    return None


def _message(deltas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    texts: dict[str, str] = {"content": "", "refusal": ""}
    calls: dict[Any, dict[str, Any]] = {}
    for delta in deltas:
        for name in texts:
            texts[name] += delta[name] if isinstance(delta.get(name), str) else ""
        pieces = delta.get("tool_calls")
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                _add(calls.setdefault(piece.get("index"), {"function": {"name": "", "arguments": ""}}), piece)
    return {"role": "assistant", **texts, "tool_calls": list(calls.values())}


def _add(call: dict[str, Any], piece: dict[str, Any]) -> None:
    if piece.get("id"):
        call["id"] = piece["id"]
    function = piece.get("function")
    for name in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(name), str):
            call["function"][name] += function[name]


def _decode(text: str, otherwise: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return otherwise
