"""Anthropic's messages: system and content blocks become OpenAI's messages and back.

Left out, and refused: images and documents, tools that run on Anthropic's servers, prefilled replies, forced tool
choice, structured output. Ignored, as it does not change what a reply may be: cache control, how much to think, thinking
that comes back.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from ludus.errors import UsageError
from ludus.recording import wire
from ludus.recording.apis.api import Answer, Caller, Kind, Request, event
from ludus.renderers.parsing import tool_calls_of
from ludus.types import Message, Reply, Usage

_KNOWN = {
    "model", "messages", "system", "tools", "max_tokens", "stop_sequences", "stream", "temperature", "top_p", "top_k",
    "tool_choice", "context_management", "output_config",
}  # fmt: skip
_HARMLESS = {
    "metadata", "service_tier", "thinking", "cache_control", "inference_geo", "speed", "diagnostics",
    "user_profile_id", "workspace_id", "betas",
}  # fmt: skip
_NEUTRAL: dict[str, tuple[Any, ...]] = {"mcp_servers": ([],), "container": ("",)}
_BILLING = "x-anthropic-billing-header"
"""Begins a system block that one client puts there for Anthropic's accounts, different in each request."""
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
}
_BLOCKS: dict[Kind, dict[str, Any]] = {
    "thought": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


class Messages:
    """POST /v1/messages."""

    def read(self, body: Mapping[str, Any], caller: Caller) -> tuple[Request, Answer]:
        """See `Api.read`."""
        messages, tools = read_prompt(body)
        names = ("temperature", "top_p", "top_k", "max_tokens")
        sampling = {name: body[name] for name in names if body.get(name) is not None}
        if stops := body.get("stop_sequences"):
            sampling["stop"] = stops
        request = Request(
            messages=messages,
            tools=tools,
            sampling=wire.check_sampling(sampling),
            stream=bool(body.get("stream")),
        )
        return request, _MessagesAnswer(caller.model, request.sampling.get("stop", ()))

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Anthropic's error body."""
        return _error(_ERRORS.get(status, "api_error"), message)


def read_prompt(body: Mapping[str, Any]) -> tuple[list[Message], list[dict[str, Any]]]:
    """Messages and tools, in OpenAI's format, of a request for a reply or for a count. Raises UsageError."""
    wire.check_fields(body, _KNOWN, _HARMLESS, _NEUTRAL)
    _check_choices(body)
    messages, tools = body.get("messages"), body.get("tools") or []
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"expected messages to be a list with at least one message, got {wire.show(messages)}")
    if not isinstance(tools, list):
        raise UsageError(f"expected tools to be a list, got {wire.show(tools)}")
    said = _read_system(body.get("system"))
    for i, message in enumerate(messages):
        said += _read_message(message, f"messages[{i}]")
    if said[-1]["role"] == "assistant":
        raise UsageError(
            "the last message is the assistant's: prefilled replies can't be honoured, end with the user's"
        )
    return said, [_read_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]


def _check_choices(body: Mapping[str, Any]) -> None:
    choice, output = body.get("tool_choice") or {}, body.get("output_config") or {}
    kind = choice.get("type", "auto") if isinstance(choice, dict) else choice
    if kind != "auto" and not (kind == "none" and not body.get("tools")):
        raise UsageError(f"tool_choice = {wire.show(choice)} can't be honoured here; leave it out")
    if not isinstance(output, dict) or output.get("format"):
        raise UsageError(
            f"output_config = {wire.show(output)} can't be honoured here: no output is forced into a format"
        )
    management = body.get("context_management") or {}
    edits = management.get("edits") or [] if isinstance(management, dict) else [management]
    if any(
        not str(edit.get("type") if isinstance(edit, dict) else edit).startswith("clear_thinking") for edit in edits
    ):
        raise UsageError(f"context_management = {wire.show(management)} can't be honoured: history is not edited here")


def _read_system(system: Any) -> list[Message]:
    if isinstance(system, list):
        system = [b for b in system if not (isinstance(b, dict) and str(b.get("text")).startswith(_BILLING))]
    text = _text_of(system, "system")
    return [{"role": "system", "content": text}] if text else []


def _read_message(message: Any, where: str) -> list[Message]:
    """One of Anthropic's messages may hold several of OpenAI's: each tool result is one."""
    if not isinstance(message, dict):
        raise UsageError(f"expected {where} to be an object, got {wire.show(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise UsageError(f"expected {where}.role to be one of user, assistant, system; got {wire.show(role)}")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise UsageError(f"expected {where}.content to be a string or a list of blocks, got {wire.show(content)}")
    blocks = [_checked(block, f"{where}.content[{i}]") for i, block in enumerate(content)]
    return [_read_assistant(blocks, where)] if role == "assistant" else _read_user(role, blocks, where)


def _checked(block: Any, where: str) -> dict[str, Any]:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise UsageError(f"expected {where} to be a block with a type, got {wire.show(block)}")
    return block


def _read_user(role: str, blocks: list[dict[str, Any]], where: str) -> list[Message]:
    messages: list[Message] = []
    for i, block in enumerate(blocks):
        if block["type"] == "tool_result":
            text = _text_of(block.get("content"), f"{where}.content[{i}].content")
            text = f"Error: {text}" if block.get("is_error") else text
            messages.append({"role": "tool", "tool_call_id": str(block.get("tool_use_id") or ""), "content": text})
            continue
        text = _text_of([block], f"{where}.content[{i}]")
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n" + text
        else:
            messages.append({"role": role, "content": text})
    return messages or [{"role": role, "content": ""}]


def _read_assistant(blocks: list[dict[str, Any]], where: str) -> Message:
    message: Message = {"role": "assistant"}
    calls = []
    thought, text = "", ""
    for i, block in enumerate(blocks):
        kind = block["type"]
        if kind == "thinking":
            thought += str(block.get("thinking") or "")
        elif kind == "tool_use":
            calls.append(_read_call(block, f"{where}.content[{i}]"))
        elif kind != "redacted_thinking":
            text += _text_of([block], f"{where}.content[{i}]")
    if thought:
        message["reasoning_content"] = thought
    message["content"] = text
    if calls:
        message["tool_calls"] = calls
    return message


def _read_call(block: dict[str, Any], where: str) -> dict[str, Any]:
    name, given = block.get("name"), block.get("input", {})
    if not isinstance(name, str):
        raise UsageError(f"expected {where} to have a name, got {wire.show(block)}")
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    function = {"name": name, "arguments": arguments}
    return {"id": str(block.get("id") or ""), "type": "function", "function": function}


def _text_of(content: Any, where: str) -> str:
    """Text, or text blocks with a line break between them. Raises UsageError for any other block."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise UsageError(f"expected {where} to be a string or a list of blocks, got {wire.show(content)}")
    for block in content:
        if not (isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)):
            kind = block.get("type") if isinstance(block, dict) else block
            raise UsageError(f"{where}: only blocks of type 'text' can be read here, got {wire.show(kind)}")
    return "\n".join(block["text"] for block in content)


def _read_tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise UsageError(f"expected {where} to be a tool with a name, got {wire.show(tool)}")
    if tool.get("type") not in (None, "custom") or not isinstance(tool.get("input_schema"), dict):
        raise UsageError(f"{where}: only tools with an input_schema can be offered, got {wire.show(tool)}")
    function = {"name": tool["name"], "description": tool.get("description") or "", "parameters": tool["input_schema"]}
    return {"type": "function", "function": function}


class _MessagesAnswer:
    def __init__(self, model: str, stops: tuple[str, ...]) -> None:
        self._id, self._model, self._stops = f"msg_{secrets.token_hex(12)}", model, stops
        self._open: Kind | None = None
        self._index = -1
        self._sent: dict[Kind, int] = {"thought": 0, "text": 0}

    def whole(self, reply: Reply, logprobs: wire.TokenLogprobs | None) -> dict[str, Any]:
        blocks: list[dict[str, Any]] = []
        if reply.reasoning:
            blocks.append({**_BLOCKS["thought"], "thinking": reply.reasoning})
        if reply.text:
            blocks.append({**_BLOCKS["text"], "text": reply.text})
        blocks += [_call_block(call, parsed) for call, parsed in _calls(reply)]
        return {**self._message(reply.usage), "content": blocks, **self._stopped(reply)}

    def piece(self, kind: Kind, text: str) -> bytes:
        events = b""
        if self._open != kind:
            events = self._close() + self._start(_BLOCKS[kind])
            self._open = kind
        self._sent[kind] += len(text)
        delta = (
            {"type": "thinking_delta", "thinking": text} if kind == "thought" else {"type": "text_delta", "text": text}
        )
        return events + self._delta(delta)

    def end(self, reply: Reply, logprobs: wire.TokenLogprobs | None) -> bytes:
        events = b""
        if late := reply.reasoning[self._sent["thought"] :]:
            events += self.piece("thought", late)
        if late := reply.text[self._sent["text"] :]:
            events += self.piece("text", late)
        for call, given in _calls(reply):
            block = _call_block(call, {})
            events += self._close() + self._start(block)
            self._open = "text"
            events += self._delta({"type": "input_json_delta", "partial_json": json.dumps(given, ensure_ascii=False)})
        events += self._close() if self._index >= 0 else self._begin()
        totals = {"input_tokens": reply.usage.prompt_tokens, "output_tokens": reply.usage.completion_tokens}
        events += event({"type": "message_delta", "delta": self._stopped(reply), "usage": totals})
        return events + event({"type": "message_stop"})

    def failed(self, message: str) -> bytes:
        return event(_error("api_error", message))

    def _begin(self) -> bytes:
        return event({"type": "message_start", "message": self._message(Usage())})

    def _start(self, block: dict[str, Any]) -> bytes:
        begun = b"" if self._index >= 0 else self._begin()
        self._index += 1
        return begun + event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return event({"type": "content_block_stop", "index": self._index})

    def _message(self, usage: Usage) -> dict[str, Any]:
        counts = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
        return {
            "id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": counts,
        }  # fmt: skip

    def _stopped(self, reply: Reply) -> dict[str, Any]:
        if reply.finish_reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if reply.stopped_by:
            return {"stop_reason": "stop_sequence", "stop_sequence": reply.stopped_by}
        return {"stop_reason": "tool_use" if reply.message.get("tool_calls") else "end_turn", "stop_sequence": None}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _calls(reply: Reply) -> list[tuple[dict[str, Any], Any]]:
    """The reply's tool calls, each with its input; arguments that are no object stay as they were written."""
    calls = reply.message.get("tool_calls") or []
    read = tool_calls_of(reply.message)
    return [
        (call, parsed.arguments if parsed.arguments is not None else call["function"].get("arguments"))
        for call, parsed in zip(calls, read, strict=True)
    ]


def _call_block(call: dict[str, Any], given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.get("id") or "", "name": call["function"]["name"], "input": given}
