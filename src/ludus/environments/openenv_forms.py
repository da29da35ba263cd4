"""From a model's reply to an OpenEnv action and from an observation to text, as the server's schemas have it. Pure.

text    one field to fill in: the reply is its value
object  several: the reply is a tool call, or a JSON object
tools   the server has tools of its own (an MCP environment), which it lists itself
chat    actions are assistant messages and observations conversations, as `ludus env serve` has it
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ludus.authoring.tools import as_text
from ludus.errors import ConfigError, RolloutError, ToolError
from ludus.types import Message, Reply

Style = Literal["text", "object", "tools", "chat"]
FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)
ENVELOPE = ("metadata", "reward", "done")
"""Fields that every action or observation has; they travel beside it."""
CHAT_FIELDS = ("content", "tool_calls", "reasoning_content")
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Forms:
    """How to act on one server, and how to show what it answers."""

    style: Style
    fills: str = ""
    """The field that a reply fills in."""
    is_text: bool = True
    """Whether that takes text; else JSON."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """JSON schema of an action."""
    shown: tuple[str, ...] = ()
    """Fields of an observation, in the order in which they are shown; others follow."""
    only: bool = False
    """Whether others are left out."""


def read_schema(answer: Any, show: Sequence[str] = ()) -> Forms:
    """What GET /schema says of actions and observations.

    Args:
        answer: its JSON.
        show: fields of an observation that the model is to see; all of them by default.

    Raises:
        ConfigError: the answer is no OpenEnv server's, or there is no such field.
    """
    action = answer.get("action") if isinstance(answer, dict) else None
    observed = answer.get("observation") if isinstance(answer, dict) else None
    if not isinstance(action, dict) or not isinstance(observed, dict):
        raise ConfigError(
            f"no OpenEnv server: /schema should describe action and observation, but gave {str(answer)[:200]}"
        )
    fields = _fields(action)
    known = tuple(_fields(observed))
    unknown = [name for name in show if known and name not in known]
    if unknown:
        raise ConfigError(f"show names {', '.join(unknown)}; an observation has {', '.join(known)}")
    shown, only = (tuple(show), True) if show else (known, False)
    required = [name for name in action.get("required", fields) if name in fields]
    parameters = {**action, "properties": fields, "required": required}
    if not fields or {"tool_name", "arguments"} <= fields.keys():
        return Forms("tools", shown=shown, only=only)
    if {"content", "tool_calls"} <= fields.keys():
        return Forms("chat", shown=shown, only=only)
    wanted = required or list(fields)
    if len(wanted) == 1:
        return Forms("text", wanted[0], _takes_text(fields[wanted[0]]), parameters, shown, only)
    return Forms("object", parameters=parameters, shown=shown, only=only)


def action_of(forms: Forms, reply: Reply) -> dict[str, Any]:
    """The action that a reply without tool calls stands for. Raises ToolError, for the model, where it can't be read."""
    if forms.style == "chat":
        spoken = {name: reply.message[name] for name in CHAT_FIELDS if reply.message.get(name)}
        finish = "length" if reply.truncated else "stop"
        return {"content": "", **spoken, "malformed": reply.malformed, "finish_reason": finish}
    text = reply.text.strip()
    if forms.style == "text" and forms.is_text:
        return {forms.fills: text}
    if forms.style == "text":
        return {forms.fills: _json(text, f"the value of {forms.fills} as JSON")}
    names = ", ".join(forms.parameters["properties"])
    value = _json(text, f"a JSON object with the fields {names}")
    if not isinstance(value, dict):
        raise ToolError(f"expected a JSON object with the fields {names}, got {text[:200]}")
    return value


def text_of(forms: Forms, observation: Mapping[str, Any]) -> str:
    """An observation for the model: its one field plainly, several by name; text as it is, all else as JSON."""
    names = [name for name in forms.shown if name in observation]
    if not forms.only:
        names += [name for name in observation if name not in names and name not in ENVELOPE]
    values = {name: observation[name] for name in names if observation[name] not in (None, "", [], {})}
    if len(values) == 1:
        return as_text(*values.values())
    return "\n".join(_line(name, as_text(value)) for name, value in values.items())


def greeting(observation: Mapping[str, Any]) -> str:
    """What the metadata of a first observation say, for servers that say it there."""
    metadata = observation.get("metadata")
    return text_of(Forms("text"), metadata) if isinstance(metadata, dict) else ""


def messages_of(observation: Mapping[str, Any]) -> list[Message]:
    """The conversation in a "chat" observation. Raises RolloutError for what is none."""
    messages = observation.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) and m.get("role") in ROLES for m in messages):
        raise RolloutError(f"expected the server's observation to hold chat messages, got {str(messages)[:200]}")
    return messages


def tools_of(observation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools that a server lists. Raises RolloutError for what is no list of them."""
    tools = observation.get("tools")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and tool.get("name") for tool in tools):
        raise RolloutError(f"expected the server to list its tools, got {str(tools)[:200]}")
    return tools


def tool_result(observation: Mapping[str, Any]) -> str:
    """What a tool of the server returned.

    Raises:
        ToolError: what the tool complains of.
        RolloutError: it could not be called, or took too long.
    """
    error, result = observation.get("error"), observation.get("result")
    if isinstance(error, dict):
        text = str(error.get("message"))
        if error.get("error_type") in ("transport_error", "timeout"):
            raise RolloutError(f"the server could not call its tool: {text}", "tool", "infrastructure")
        raise ToolError(text)
    if not isinstance(result, dict) or not isinstance(result.get("content"), list):
        return as_text(result)
    text = "\n".join(_part(part) for part in result["content"])
    if result.get("is_error"):
        raise ToolError(text)
    return text


def _part(part: Any) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    return f"[{part.get('type', 'something')}, left out]" if isinstance(part, dict) else as_text(part)


def _line(name: str, text: str) -> str:
    return f"{name}:\n{text}" if "\n" in text else f"{name}: {text}"


def _json(text: str, what: str) -> Any:
    fenced = FENCED.match(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"expected {what}: {error}") from None


def _fields(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    return {name: value for name, value in properties.items() if name not in ENVELOPE}


def _takes_text(schema: Any) -> bool:
    choices = [schema, *schema.get("anyOf", ())] if isinstance(schema, dict) else []
    return any(isinstance(choice, dict) and choice.get("type") == "string" for choice in choices)
