"""Tools: a JSON schema from a function's signature and docstring, checked arguments, calls with injected parameters."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ludus.authoring.calling import INJECTED, call, inject
from ludus.authoring.declare import ToolMark, mark_of
from ludus.errors import RolloutError, ToolError
from ludus.types import Message, ToolCall

UNREADABLE = "Your tool call could not be read"
"""How an agent is told, in the user's place, of a call that is none."""
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
        self.in_order = isinstance(mark, ToolMark) and mark.in_order
        self._arguments = _arguments_of(getattr(fn, "__func__", fn))

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema in OpenAI's format."""
        parameters = self._arguments.model_json_schema()
        parameters.pop("title", None)
        parameters.pop("description", None)
        for field in parameters.get("properties", {}).values():
            field.pop("title", None)
        return _schema(self.name, inspect.getdoc(self.fn) or "", parameters)

    async def __call__(self, arguments: Mapping[str, Any], available: Mapping[str, Any]) -> Any:
        """Run with the model's arguments, checked, and what the function asks for by name.

        Raises:
            ToolError: the arguments don't fit the schema, or the tool refused.
            RolloutError: the tool raised something else or overran its time: the rollout fails.
        """
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                return await self._run(arguments, available)
        except RolloutError:
            raise
        except Exception as error:
            if limit.expired():
                raise RolloutError(f"the tool {self.name} took more than {self.timeout_s} s", "tool") from None
            raise RolloutError(f"the tool {self.name} raised {type(error).__name__}: {error}", "tool") from error

    @property
    def concurrent(self) -> bool:
        """Whether it may run beside other calls of a reply: coroutines may unless marked, functions may count on their
        order."""
        return inspect.iscoroutinefunction(self.fn) and not self.in_order

    async def _run(self, arguments: Mapping[str, Any], available: Mapping[str, Any]) -> Any:
        """Check the arguments and call the function. Raises ToolError where they don't fit the schema."""
        try:
            checked = self._arguments.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, p['loc'])) or 'arguments'}: {p['msg']}" for p in error.errors(include_url=False)
            )
            raise ToolError(f"bad arguments for {self.name}: {problems}") from None
        values = {name.removeprefix(_PREFIX): getattr(checked, name) for name in type(checked).model_fields}
        return await call(self.fn, **values, **inject(self.fn, available))


class SchemaTool(Tool):
    """A tool that brings its schema and judges arguments itself, such as one on a server.

    Args:
        name: what the model calls it.
        description: what it does, for the model.
        parameters: JSON schema of its arguments, shown to the model as it is.
        run: called with the arguments; raises ToolError to tell the model that they don't fit.
        timeout_s: seconds one call may take; the rollout then fails with boundary "tool".
    """

    def __init__(
        self,
        name: str,
        description: str,
        parameters: dict[str, Any],
        run: Callable[[dict[str, Any]], Awaitable[Any]],
        timeout_s: float | None = None,
    ) -> None:
        self.fn, self.name, self.timeout_s, self.in_order = run, name, timeout_s, False
        self.schema = _schema(name, description, parameters)

    async def _run(self, arguments: Mapping[str, Any], available: Mapping[str, Any]) -> Any:
        return await call(self.fn, dict(arguments))


def _schema(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A tool in OpenAI's format."""
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_MODELS: weakref.WeakKeyDictionary[Callable[..., Any], type[BaseModel]] = weakref.WeakKeyDictionary()
"""Arguments of functions that were seen before: every rollout has its tools made, and pydantic takes a millisecond."""


def _arguments_of(fn: Callable[..., Any]) -> type[BaseModel]:
    if fn not in _MODELS:
        _MODELS[fn] = _arguments_model(fn)
    return _MODELS[fn]


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


async def answers(
    tools: Mapping[str, Tool], tool_calls: Sequence[ToolCall], available: Mapping[str, Any]
) -> list[Message]:
    """The tool messages that answer the calls of one reply, in their order.

    Coroutines run side by side; functions one after another, as they may count on their order.

    Raises:
        RolloutError: a tool failed; what else was under way is cancelled.
    """
    answered: dict[int, Message] = {}

    async def in_order(indices: list[int]) -> None:
        for index in indices:
            answered[index] = await answer(tools, tool_calls[index], available)

    in_turn = [i for i, called in enumerate(tool_calls) if not _concurrent(tools, called)]
    beside = [[i] for i in range(len(tool_calls)) if i not in in_turn]
    if not beside:
        await in_order(in_turn)
    else:
        await _side_by_side([in_order(indices) for indices in (in_turn, *beside)])
    return [answered[index] for index in range(len(tool_calls))]


async def _side_by_side(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first to raise ends the others, and is raised when they have ended."""
    running = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _concurrent(tools: Mapping[str, Tool], called: ToolCall) -> bool:
    return called.name in tools and tools[called.name].concurrent


def as_text(value: Any) -> str:
    """What a tool returned, as the model reads it: strings as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)
