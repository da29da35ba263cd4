"""An MCP server for the tests, written with the official SDK: `python toolbox.py [words to print first]`."""

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp_types import EmbeddedResource, TextContent, TextResourceContents

server = MCPServer("toolbox")
total = 0


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def slow_add(a: int, b: int) -> int:
    """Add two numbers, not at once."""
    await asyncio.sleep(0.05)
    return a + b


@server.tool()
def count(by: int = 1) -> int:
    """Count on, and say how far."""
    global total
    total += by
    return total


@server.tool()
def pid() -> int:
    """The process that this is."""
    return os.getpid()


@server.tool()
def child() -> int:
    """A process that this one starts and forgets."""
    return subprocess.Popen(["sleep", "600"]).pid


@server.tool()
def environment(names: list[str]) -> dict[str, str | None]:
    """Environment variables."""
    return {name: os.environ.get(name) for name in names}


@server.tool()
def echo(value: Any) -> Any:
    """The same again."""
    return value


@server.tool(structured_output=False)
def show() -> list[Any]:
    """Something of everything."""
    resource = TextResourceContents(uri="memo://1", text="a memo")
    return ["text", Image(data=b"\x89PNG" * 3), EmbeddedResource(type="resource", resource=resource)]


@server.tool(name="dotted.name/x")
def dotted() -> str:
    """A name that MCP allows."""
    return "dotted"


@server.tool()
def refuse() -> str:
    """Raise."""
    raise ValueError(f"no, not with {os.environ.get('TOKEN')}")


@server.tool()
async def hang() -> str:
    """Never answer."""
    await asyncio.sleep(3600)
    return ""


@server.tool()
async def block() -> str:
    """Let nobody else answer either."""
    time.sleep(3600)
    return ""


@server.tool()
async def crash() -> str:
    """End everything."""
    print("first words", file=sys.stderr)
    print(f"out of cheese, redo from {os.environ.get('TOKEN')}", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
def text_only() -> list[TextContent]:
    """Two blocks."""
    return [TextContent(type="text", text="one"), TextContent(type="text", text="two")]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(" ".join(sys.argv[1:]), flush=True)
    server.run("stdio")
