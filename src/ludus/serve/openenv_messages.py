"""What OpenEnv's messages say here: an action is an assistant message, an observation what came since the last one.

Pydantic models, because /schema shows clients their JSON schemas.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ludus.renderers.parsing import tool_calls_of
from ludus.types import FinishReason, Message, Reply


class _Function(BaseModel):
    name: str
    arguments: str | dict[str, Any] = "{}"
    """A JSON object, or its text."""


class _Call(BaseModel):
    id: str = ""
    type: Literal["function"] = "function"
    function: _Function


class Action(BaseModel):
    """An assistant message in OpenAI's format."""

    model_config = ConfigDict(extra="forbid")

    content: str | None = Field(default="", description="The visible text.")
    tool_calls: list[_Call] = Field(default=[], description="Calls of the tools that were offered.")
    reasoning_content: str | None = Field(default=None, description="The thinking before the text.")
    finish_reason: Literal["stop", "length", "tool_calls"] = Field(
        default="stop", description='"length" where the reply was cut off.'
    )
    malformed: str = Field(default="", description="Why a tool call in the text could not be read.")
    metadata: dict[str, Any] = Field(default={}, description="Not looked at.")


class Observation(BaseModel):
    """What the model is asked, or the end of the episode."""

    messages: list[dict[str, Any]] = Field(description="What came since the last reply, in OpenAI's format.")
    continues: bool = Field(description="Whether they continue the conversation; else they are a whole one.")
    tools: list[dict[str, Any]] = Field(description="JSON schemas of the tools that are offered, in OpenAI's format.")
    role: str = Field(description="Whose turn it is.")
    stop: str = Field(default="", description="Why the episode ended.")
    metrics: dict[str, float] = Field(default={}, description="What each scorer said, at the end.")


class State(BaseModel):
    """Where a session is."""

    episode_id: str | None = None
    step_count: int = 0
    split: str = ""
    task: str = ""
    seed: int | None = None


class ResetRequest(BaseModel):
    """What a reset may say; OpenEnv's clients send other things too, which are not looked at."""

    seed: int | None = Field(default=None, ge=0)
    episode_id: str | None = None
    split: str | None = None
    index: int | None = None
    task: str | int | None = None


def reply_of(action: Action, step: int) -> Reply:
    """The reply that an action is; calls without an id get one."""
    message: Message = {"role": "assistant", "content": action.content or ""}
    if action.reasoning_content:
        message["reasoning_content"] = action.reasoning_content
    if action.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id or f"call_{step}_{number}",
                "type": "function",
                "function": {"name": call.function.name, "arguments": _as_text(call.function.arguments)},
            }
            for number, call in enumerate(action.tool_calls)
        ]
    finish: FinishReason = (
        "tool_calls" if action.finish_reason == "stop" and action.tool_calls else action.finish_reason
    )
    return Reply(message, tool_calls_of(message), finish, malformed=action.malformed)


def _as_text(arguments: str | dict[str, Any]) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def error_of(text: str, code: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "data": {"message": text, "code": code, **more}}
