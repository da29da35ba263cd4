"""Requests to OpenAI's endpoints, read and checked.

A request is honoured or refused, never half obeyed: whatever would change the reply and can't be done is a UsageError,
which servers answer with status 400. Left out: several choices, media, log-probabilities of alternatives, and forced
tool choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ludus.errors import UnknownName, UsageError
from ludus.recording.wire.messages import PLAIN
from ludus.renderers.parsing import REASONING_FIELDS
from ludus.types import Message, Sampling

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
"""Roles on the wire, and what templates call them."""

_MESSAGE_FIELDS = ("role", "content", "name", "tool_call_id", *REASONING_FIELDS)
_COMMON = {
    "model",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "stop",
    "seed",
    "stream",
    "stream_options",
    "logprobs",
}
_CHAT = _COMMON | {"messages", "tools", "max_completion_tokens"}
_COMPLETION = _COMMON | {"prompt"}

_HARMLESS = {
    "user", "metadata", "store", "parallel_tool_calls", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prediction", "verbosity", "reasoning_effort",
}  # fmt: skip
"""Accepted and ignored: they don't change what a reply may be."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
}
"""The only values of these fields that can be honoured; null always can."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to /v1/chat/completions, checked and normalised."""

    model: str
    messages: list[Message]
    tools: list[dict[str, Any]]
    sampling: dict[str, Any]
    """Fields of `Sampling` that the request sets."""
    stream: bool = False
    include_usage: bool = False
    """Whether a stream ends with a chunk of usage."""
    logprobs: bool = False


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to /v1/completions, checked and normalised."""

    model: str
    prompt: str | list[int]
    sampling: dict[str, Any]
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False


def parse_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Read the JSON body of a chat request. Raises UsageError for what is not valid or can't be honoured."""
    check_fields(body, _CHAT)
    messages, tools = body.get("messages"), body.get("tools") or []
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"expected messages to be a list with at least one message, got {show(messages)}")
    if not isinstance(tools, list):
        raise UsageError(f"expected tools to be a list, got {show(tools)}")
    return ChatRequest(
        messages=[_read_message(message, f"messages[{i}]") for i, message in enumerate(messages)],
        tools=[_read_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)],
        **_read_common(body),
    )


def parse_completion(body: Mapping[str, Any]) -> CompletionRequest:
    """Read the JSON body of a completion request. Raises UsageError for what is not valid or can't be honoured."""
    check_fields(body, _COMPLETION)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str) or (
        isinstance(prompt, list) and prompt and all(type(i) is int and i >= 0 for i in prompt)
    ):
        return CompletionRequest(prompt=prompt, **_read_common(body))
    raise UsageError(f"expected prompt to be one text or one list of token ids, got {show(prompt)}")


def check_fields(
    body: Mapping[str, Any],
    known: set[str],
    harmless: set[str] = _HARMLESS,
    neutral: Mapping[str, tuple[Any, ...]] = _NEUTRAL,
) -> None:
    """Refuse what a request asks for and would not get.

    Args:
        body: the request.
        known: fields that are read.
        harmless: fields that may have any value.
        neutral: the only values of other fields that can be honoured; null always can.

    Raises:
        UsageError: naming the field, and what may stand there.
    """
    for name, value in body.items():
        if name in known or name in harmless or value is None:
            continue
        if name == "tool_choice" and value == "none" and not body.get("tools"):
            continue  # without tools there is nothing to choose
        if name not in neutral:
            raise UnknownName("field in the request", name, known | harmless | set(neutral))
        if value not in neutral[name]:
            allowed = " or ".join(json.dumps(choice) for choice in neutral[name])
            raise UsageError(f"{name} = {show(value)} can't be honoured here; leave it out, or send {allowed}")


def check_sampling(sampling: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Sampling`, of the right types and in range. Raises UsageError."""
    try:
        checked = msgspec.convert(sampling, Sampling)
    except msgspec.ValidationError as error:
        raise UsageError(f"the request's sampling parameters are not valid: {error}") from None
    return {name: getattr(checked, name) for name in sampling}


def _read_common(body: Mapping[str, Any]) -> dict[str, Any]:
    sampling = {name: body[name] for name in ("temperature", "top_p", "top_k", "seed") if body.get(name) is not None}
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None:
            sampling["max_tokens"] = body[name]
    stop = body.get("stop")
    if stop:
        sampling["stop"] = (stop,) if isinstance(stop, str) else stop
    options, logprobs = body.get("stream_options") or {}, body.get("logprobs")
    if logprobs is not None and type(logprobs) is not bool and logprobs not in (0, 1):
        raise UsageError(f"logprobs = {show(logprobs)}: only the sampled tokens' own log-probabilities are known")
    return {
        "model": str(body.get("model") or ""),
        "sampling": check_sampling(sampling),
        "stream": bool(body.get("stream")),
        "include_usage": isinstance(options, dict) and bool(options.get("include_usage")),
        "logprobs": logprobs is not None and logprobs is not False,
    }


def _read_message(message: Any, where: str) -> Message:
    """The message with known fields only, text content as one string, and nothing that is null."""
    if not isinstance(message, dict):
        raise UsageError(f"expected {where} to be an object, got {show(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UsageError(f"expected {where}.role to be one of {', '.join(ROLES)}; got {show(role)}")
    if type(content) is str and message.keys() == PLAIN:
        return message if role == ROLES[role] else {"role": ROLES[role], "content": content}
    if content is None and role != "assistant":
        raise UsageError(f"{where}.content is missing")
    read = {name: message[name] for name in _MESSAGE_FIELDS if message.get(name) is not None}
    read |= {"role": ROLES[role], "content": read_text(content, where)}
    calls = message.get("tool_calls")
    if calls and role == "assistant":
        if not isinstance(calls, list):
            raise UsageError(f"expected {where}.tool_calls to be a list, got {show(calls)}")
        read["tool_calls"] = [_read_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]
    return read


def read_text(content: Any, where: str) -> str:
    """Content as one string: a string, or parts of type text. Raises UsageError."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise UsageError(f"expected {where}.content to be a string or a list of parts, got {show(content)}")
    for i, part in enumerate(content):
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, dict) else part
            raise UsageError(f"{where}.content[{i}]: only parts of type 'text' can be read, got {show(kind)}")
    return "".join(part["text"] for part in content)


def _read_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise UsageError(f"expected {where} to be a call of type 'function', got {show(call)}")
    name, arguments = function.get("name"), function.get("arguments", "")
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise UsageError(f"expected {where}.function to have a name and arguments as JSON text, got {show(function)}")
    return {
        "id": str(call.get("id") or ""),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _read_tool(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type") != "function" or not isinstance(function.get("name"), str):
        raise UsageError(f"expected {where} to be of type 'function' and to have a name, got {show(tool)}")
    return {"type": "function", "function": function}


def show(value: Any) -> str:
    """A value as error texts quote it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
