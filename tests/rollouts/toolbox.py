"""An MCP server for the tests, written with the official SDK."""

import asyncio
import os
import sys
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import EmbeddedResource, TextResourceContents

total = 0


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def slow_add(a: int, b: int) -> int:
    """Add two numbers, not at once."""
    await asyncio.sleep(0.05)
    return a + b


def count(by: int = 1) -> int:
    """Count on, and say how far."""
    global total
    total += by
    return total


def pid() -> int:
    """The process that this is."""
    return os.getpid()


def variables(names: list[str]) -> dict[str, str | None]:
    """Environment variables."""
    return {name: os.environ.get(name) for name in names}


def echo(value: dict[str, Any]) -> dict[str, Any]:
    """The same again."""
    return value


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def show() -> list[Any]:
    """Something of everything."""
    resource = TextResourceContents(uri="memo://1", text="a memo")
    return ["text", Image(data=b"\x89PNG" * 3), EmbeddedResource(type="resource", resource=resource)]


def refuse() -> str:
    """Raise what the model is told."""
    raise ToolError(f"no, not with {os.environ.get('TOKEN')}")


def fail() -> str:
    """Raise something else."""
    raise KeyError("k")


async def hang() -> str:
    """Never answer."""
    await asyncio.sleep(3600)
    return ""


async def crash() -> str:
    """End everything."""
    print(f"out of cheese, redo from {os.environ.get('TOKEN')}", file=sys.stderr, flush=True)
    os._exit(3)


def toolbox() -> MCPServer:
    """The server."""
    server = MCPServer("toolbox", log_level="CRITICAL")
    for fn in (add, slow_add, count, pid, variables, echo, words, refuse, fail, hang, crash):
        server.tool()(fn)
    server.tool(structured_output=False)(show)
    server.tool(name="dotted.name-x")(pid)
    return server


if __name__ == "__main__":
    toolbox().run("stdio")
