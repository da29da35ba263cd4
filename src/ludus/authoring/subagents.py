"""Sub-agents: conversations of their own inside a rollout, which share its outcome and are trained with it.

A sub-agent's calls become further sequences of the same rollout. Its final text is all that its caller sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ludus.authoring import tools as tools_module
from ludus.authoring.tools import Tool
from ludus.errors import UnknownName, UsageError
from ludus.types import MAIN_ROLE, Message, Reply, user

if TYPE_CHECKING:
    from ludus.authoring.context import Context

NAME = re.compile(r"(?!v1$)[A-Za-z0-9_.-]{1,64}")
CUT_OFF = "The sub-agent ran out of turns."
"""What its caller is told where a sub-agent never came to an end."""


async def run_subagent(
    ctx: Context,
    prompt: str | Sequence[Message],
    *,
    name: str,
    system: str = "",
    tools: Iterable[Any] | None = None,
    role: str = MAIN_ROLE,
    max_turns: int = 10,
    **sampling: Any,
) -> str:
    """Let a sub-agent work until it replies without calling a tool; see `Context.subagent`."""
    if role not in ctx.models:
        raise UnknownName("role of this environment", role, ctx.models)
    model = ctx.models[role].subagent(name)
    messages = [user(prompt)] if isinstance(prompt, str) else list(prompt)
    if system:
        messages.insert(0, {"role": "system", "content": system})
    offered = dict(ctx.tools) if tools is None else _by_name(tools)
    schemas = [tool.schema for tool in offered.values()]
    for _ in range(max_turns):
        reply = await model.chat(messages, tools=schemas, **sampling)
        messages.append(reply.message)
        if reply.truncated or not (reply.tool_calls or reply.malformed):
            return reply.text
        messages += await _answers(reply, offered, ctx.injectable())
    return CUT_OFF


def _by_name(tools: Iterable[Any]) -> dict[str, Tool]:
    made = [tool if isinstance(tool, Tool) else Tool(tool) for tool in tools]
    return {tool.name: tool for tool in made}


async def _answers(reply: Reply, offered: Mapping[str, Tool], available: Mapping[str, Any]) -> list[Message]:
    if reply.malformed:
        return [user(f"{tools_module.UNREADABLE}: {reply.malformed}")]
    return [await tools_module.answer(offered, called, available) for called in reply.tool_calls]


def check_name(name: str) -> str:
    """The name. Raises UsageError where a sub-agent can't be called that: names are part of addresses."""
    if not NAME.fullmatch(name):
        raise UsageError(f'a sub-agent\'s name is up to 64 letters, digits, "_", "-" and ".", and not {name!r}')
    return name
