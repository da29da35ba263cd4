"""Tools: a JSON schema from a function's signature and docstring, checked arguments, calls with injected parameters."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ludus.authoring.calling import INJECTED, call, inject
from ludus.authoring.declare import ToolMark, mark_of
from ludus.errors import RolloutError, ToolError
from ludus.types import Message, ToolCall

_PREFIX = "argument_"
"""Keeps parameters such as `json` and `copy` apart from the attributes that pydantic's models have."""


class Tool:
    """A function that the model may call.

    >>> def add(a: int, b: int = 1) -> int:
    ...     "Add two numbers."
    ...     return a + b
    >>> Tool(add).schema["function"]["parameters"]["required"]
    ['a']
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        mark = mark_of(fn)
        self.fn = fn
        self.name = mark.name if isinstance(mark, ToolMark) else fn.__name__
        self.timeout_s = mark.timeout_s if isinstance(mark, ToolMark) else None
        self._arguments = _arguments_model(getattr(fn, "__func__", fn))

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema in OpenAI's format."""
        parameters = self._arguments.model_json_schema()
        parameters.pop("title", None)
        parameters.pop("description", None)
        for field in parameters.get("properties", {}).values():
            field.pop("title", None)
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": inspect.getdoc(self.fn) or "",
                "parameters": parameters,
            },
        }

    async def __call__(self, arguments: Mapping[str, Any], available: Mapping[str, Any]) -> Any:
        """Run with the model's arguments, checked, and what the function asks for by name.

        Raises:
            ToolError: the arguments don't fit the schema, or the tool refused.
            RolloutError: the tool raised something else or overran its time: the rollout fails.
        """
        try:
            checked = self._arguments.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, p['loc'])) or 'arguments'}: {p['msg']}" for p in error.errors(include_url=False)
            )
            raise ToolError(f"bad arguments for {self.name}: {problems}") from None
        values = {name.removeprefix(_PREFIX): getattr(checked, name) for name in type(checked).model_fields}
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                return await call(self.fn, **values, **inject(self.fn, available))
        except RolloutError:
            raise
        except Exception as error:
            if limit.expired():
                raise RolloutError(f"the tool {self.name} took more than {self.timeout_s} s", "tool") from None
            raise RolloutError(f"the tool {self.name} raised {type(error).__name__}: {error}", "tool") from error


def _arguments_model(fn: Callable[..., Any]) -> type[BaseModel]:
    hints = get_type_hints(fn, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(fn).parameters.items():
        if name in INJECTED or name == "self":
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"the tool {fn.__qualname__} takes *{name}: a schema needs named parameters")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[_PREFIX + name] = (hints.get(name, Any), default)
    config = ConfigDict(extra="forbid", alias_generator=lambda field: field.removeprefix(_PREFIX))
    model: type[BaseModel] = create_model(fn.__name__, __config__=config, **fields)
    return model


def schema_of(tool: Any) -> dict[str, Any]:
    """The JSON schema of a Tool, of a marked function, or of a dict that is one already."""
    if isinstance(tool, dict):
        return tool
    return tool.schema if isinstance(tool, Tool) else Tool(tool).schema


async def answer(tools: Mapping[str, Tool], tool_call: ToolCall, available: Mapping[str, Any]) -> Message:
    """The tool message that answers one call; the model's own mistakes become its text.

    Raises:
        RolloutError: the tool itself failed.
    """
    try:
        if tool_call.arguments is None:
            raise ToolError(tool_call.error)
        if tool_call.name not in tools:
            raise ToolError(f"there is no tool {tool_call.name!r}; the tools are: {', '.join(tools) or 'none'}")
        result = as_text(await tools[tool_call.name](tool_call.arguments, available))
    except ToolError as error:
        result = f"Error: {error}"
    return {"role": "tool", "tool_call_id": tool_call.id, "name": tool_call.name, "content": result}


def as_text(value: Any) -> str:
    """What a tool returned, as the model reads it: strings as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)
