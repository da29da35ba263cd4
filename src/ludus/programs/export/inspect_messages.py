"""Messages in OpenAI's format, as every rollout has them, as messages of Inspect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ludus.types import Call, Message, content_hash

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, ChatMessageAssistant, Content, ModelOutput
    from inspect_ai.tool import ToolCall

STOPS: dict[str, Literal["stop", "max_tokens", "tool_calls"]] = {
    "stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls",
}  # fmt: skip


def chat_messages(messages: Sequence[Message], key: str, start: int = 0) -> list[ChatMessage]:
    """Messages with ids that are the same wherever the same message stands in a rollout.

    Args:
        key: of the rollout.
        start: place of the first one in its conversation.
    """
    return [_chat_message(m, content_hash([key, number, m])) for number, m in enumerate(messages, start)]


def text_of(value: Any) -> str:
    """Text as it is, nothing as none, everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def output_of(call: Call | None, model: str, key: str) -> ModelOutput:
    """What a model call gave; nothing where there was none."""
    from inspect_ai.model import ChatCompletionChoice, ModelOutput, ModelUsage

    if call is None:
        return ModelOutput(model=model)
    usage = call.usage
    tokens = ModelUsage(
        input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens, total_cost=usage.cost or None,
    )  # fmt: skip
    message = _assistant(call.reply, f"{key}-output", model)
    choice = ChatCompletionChoice(message=message, stop_reason=STOPS.get(call.finish_reason, "unknown"))
    return ModelOutput(model=model, choices=[choice], usage=tokens, time=call.seconds)


def _chat_message(message: Message, key: str) -> ChatMessage:
    from inspect_ai.model import ChatMessageSystem, ChatMessageTool, ChatMessageUser

    role, content = message.get("role"), _content(message.get("content"))
    if role == "assistant":
        return _assistant(message, key)
    if role in ("system", "developer"):
        return ChatMessageSystem(content=content, id=key)
    if role == "tool":
        return ChatMessageTool(
            content=content, id=key, tool_call_id=_optional(message.get("tool_call_id")),
            function=_optional(message.get("name")),
        )  # fmt: skip
    extra = None if role == "user" else {"role": role}
    return ChatMessageUser(content=content, id=key, metadata=extra)


def _assistant(message: Message, key: str, model: str | None = None) -> ChatMessageAssistant:
    from inspect_ai.model import ChatMessageAssistant, ContentReasoning, ContentText

    content = _content(message.get("content"))
    if thinking := message.get("reasoning_content"):
        said = [ContentText(text=content)] if isinstance(content, str) else content
        content = [ContentReasoning(reasoning=text_of(thinking)), *said]
    calls = [_tool_call(call, number) for number, call in enumerate(message.get("tool_calls") or ())]
    return ChatMessageAssistant(content=content, id=key, tool_calls=calls or None, model=model)


def _tool_call(call: Mapping[str, Any], number: int) -> ToolCall:
    """Arguments that are not a JSON object stay as they were written, as the error that they are."""
    from inspect_ai.tool import ToolCall

    function = call.get("function") or {}
    written = function.get("arguments") or "{}"
    try:
        arguments = written if isinstance(written, dict) else json.loads(written)
    except (TypeError, ValueError):
        arguments = None
    error = None if isinstance(arguments, dict) else f"not a JSON object: {text_of(written)}"
    return ToolCall(
        id=str(call.get("id") or f"call-{number}"), function=str(function.get("name") or ""),
        arguments=arguments if isinstance(arguments, dict) else {}, parse_error=error,
    )  # fmt: skip


def _content(content: Any) -> str | list[Content]:
    """Text, or a list of parts; what is neither text nor a picture is shown as JSON."""
    from inspect_ai.model import ContentImage, ContentText

    if not isinstance(content, list):
        return text_of(content)
    parts: list[Content] = []
    for part in content:
        image = part.get("image_url") if isinstance(part, dict) else None
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and url:
            parts.append(ContentImage(image=url))
        else:
            text = part.get("text") if isinstance(part, dict) else part
            parts.append(ContentText(text=text if isinstance(text, str) else text_of(part)))
    return parts


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)
