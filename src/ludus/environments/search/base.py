"""`SearchEnvironment`: what agents that search a mailbox and those that search an encyclopedia have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.authoring.tools import Tool
from ludus.environments.search.commands import Command, Commands, read_command, write_command
from ludus.types import Message, Reply, ToolCall, calls_tool, user


@dataclass
class Search:
    """One rollout's world."""

    where: Any
    """What is searched."""
    tools: dict[str, Tool] = field(default_factory=dict)
    ended: str = ""
    """Why it is over, once it is."""


class SearchEnvironment(Environment):
    """Base of environments whose agent calls tools, or, where it is terse, says lines that stand for such calls."""

    commands: ClassVar[dict[str, Command]]
    terse: bool

    @property
    def shown_commands(self) -> Commands | None:
        """The commands of a terse agent; None for one that calls tools."""
        return self.commands if self.terse else None

    def begin(self, ctx: Context, where: Any) -> None:
        """Make the state of a rollout; a terse agent is shown no tools."""
        ctx.state = Search(where, ctx.tools)
        if self.terse:
            ctx.tools = {}

    async def stopped(self, ctx: Context) -> str:
        """Why it is over, or ""."""
        return ctx.state.ended or await super().stopped(ctx)

    def calls_of(self, reply: Reply) -> tuple[ToolCall, ...]:
        """The calls that a reply makes."""
        if not self.terse:
            return reply.tool_calls
        called = read_command(reply.text, self.commands)
        return () if called is None else (called,)

    def answers(self, called: ToolCall, result: str) -> Message:
        """The message that answers a call."""
        if self.terse:
            return user(result)
        return {"role": "tool", "tool_call_id": called.id, "name": called.name, "content": result}

    def says(self, tool: str, **arguments: Any) -> Message | str:
        """An expert's call."""
        return write_command(tool, arguments, self.commands) if self.terse else calls_tool(tool, **arguments)
