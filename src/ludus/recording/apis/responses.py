"""OpenAI's responses: items become messages. What is said back stands in `response_events`.

Left out, and refused: built-in and custom tools, images and files, stored conversations and prompts, background
answers, structured output. `previous_response_id` is supported within one rollout, where its conversations are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ludus.errors import UsageError
from ludus.recording import wire
from ludus.recording.apis.api import Answer, Caller, Request
from ludus.recording.apis.chat import openai_error
from ludus.recording.apis.response_events import ResponseAnswer
from ludus.types import Message

_KNOWN = {
    "model", "input", "instructions", "tools", "stream", "temperature", "top_p", "max_output_tokens", "text",
    "include", "previous_response_id", "reasoning", "store",
}  # fmt: skip
_HARMLESS = {
    "user", "metadata", "parallel_tool_calls", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options", "stream_options", "max_tool_calls", "client_metadata",
}  # fmt: skip
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "tool_choice": ("auto",),
    "truncation": ("disabled",),
    "top_logprobs": (0,),
}
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_INCLUDABLE = {"reasoning.encrypted_content": False, "message.output_text.logprobs": True}
"""What may be asked for on top, and whether it is log-probabilities."""


class Responses:
    """POST /v1/responses."""

    def read(self, body: Mapping[str, Any], caller: Caller) -> tuple[Request, Answer]:
        """See `Api.read`."""
        wire.check_fields(body, _KNOWN, _HARMLESS, _NEUTRAL)
        names = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}
        sampling = {ours: body[theirs] for theirs, ours in names.items() if body.get(theirs) is not None}
        tools = body.get("tools") or []
        if not isinstance(tools, list):
            raise UsageError(f"expected tools to be a list, got {wire.show(tools)}")
        messages = [*_earlier(body.get("previous_response_id"), caller), *_read_input(body.get("input"))]
        instructions = body.get("instructions")
        if instructions is not None and not isinstance(instructions, str):
            raise UsageError(f"expected instructions to be text, got {wire.show(instructions)}")
        _check_text(body.get("text"))
        request = Request(
            messages=[{"role": "system", "content": instructions}, *messages] if instructions else messages,
            tools=[_read_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)],
            sampling=wire.check_sampling(sampling),
            stream=bool(body.get("stream")),
            logprobs=_read_include(body.get("include")),
        )
        threads = caller.threads if body.get("store") is not False else None
        return request, ResponseAnswer(body, caller.model, messages, threads)

    def error(self, status: int, message: str) -> dict[str, Any]:
        """OpenAI's error body."""
        return openai_error(status, message)


def _earlier(previous: Any, caller: Caller) -> list[Message]:
    """The conversation up to an earlier answer, without its instructions, as OpenAI has it."""
    if previous is None:
        return []
    if caller.threads is None:
        raise UsageError(
            "previous_response_id can't be honoured: nothing is stored here; send the conversation as input"
        )
    if previous not in caller.threads:
        raise UsageError(f"previous_response_id = {wire.show(previous)} is no stored response of this rollout")
    return caller.threads[previous]


def _check_text(text: Any) -> None:
    form = (text or {}).get("format") or {"type": "text"} if isinstance(text, dict) or text is None else text
    if form != {"type": "text"}:
        raise UsageError(f"text = {wire.show(text)} can't be honoured here: no output is forced into a format")


def _read_include(include: Any) -> bool:
    """Whether log-probabilities are asked for."""
    wanted = include or []
    for name in wanted if isinstance(wanted, list) else [wanted]:
        if name not in _INCLUDABLE:
            raise UsageError(f"include = {wire.show(name)} can't be honoured here; there is {', '.join(_INCLUDABLE)}")
    return any(_INCLUDABLE[name] for name in wanted)


def _read_tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("name"), str):
        raise UsageError(f"{where}: only tools of type 'function' with a name can be offered, got {wire.show(tool)}")
    fields = {"name": tool["name"], "description": tool.get("description"), "parameters": tool.get("parameters")}
    return {"type": "function", "function": {name: value for name, value in fields.items() if value is not None}}


# --- input items --------------------------------------------------------------------------------------------------


def _read_input(given: Any) -> list[Message]:
    """The messages of a text or a list of items; what the assistant said in a row is one message."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise UsageError(f"expected input to be text or a list with at least one item, got {wire.show(given)}")
    messages: list[Message] = []
    for i, item in enumerate(given):
        if not isinstance(item, dict):
            raise UsageError(f"expected input[{i}] to be an object, got {wire.show(item)}")
        _add_item(messages, item, f"input[{i}]")
    return messages


def _add_item(messages: list[Message], item: dict[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message" and item.get("role") != "assistant":
        if item.get("role") not in ("user", "system", "developer"):
            raise UsageError(f"expected {where}.role to be user, assistant, system or developer, got {wire.show(item)}")
        text = _text_of(item.get("content"), f"{where}.content")
        messages.append({"role": wire.ROLES[item["role"]], "content": text})
    elif kind == "function_call_output":
        text = _text_of(item.get("output"), f"{where}.output")
        messages.append({"role": "tool", "tool_call_id": str(item.get("call_id") or ""), "content": text})
    elif kind in ("message", "function_call", "reasoning"):
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        _add_to_reply(messages[-1], kind, item, where)
    else:
        raise UsageError(f"{where}: items of type {wire.show(kind)} can't be read here")


def _add_to_reply(message: Message, kind: str, item: dict[str, Any], where: str) -> None:
    if kind == "message":
        message["content"] += _text_of(item.get("content"), f"{where}.content")
    elif kind == "reasoning":
        thought = _text_of(item.get("content") or item.get("summary") or [], f"{where}.content")
        if thought:
            message["reasoning_content"] = message.get("reasoning_content", "") + thought
    else:
        name, arguments = item.get("name"), item.get("arguments", "")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise UsageError(f"expected {where} to have a name and arguments as JSON text, got {wire.show(item)}")
        call = {"id": str(item.get("call_id") or ""), "type": "function"}
        message.setdefault("tool_calls", []).append({**call, "function": {"name": name, "arguments": arguments}})


def _text_of(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UsageError(f"expected {where} to be text or a list of parts, got {wire.show(content)}")
    for part in content:
        if not (isinstance(part, dict) and part.get("type") in _TEXTS and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, dict) else part
            raise UsageError(f"{where}: only parts of text can be read, got {wire.show(kind)}")
    return "".join(part["text"] for part in content)
