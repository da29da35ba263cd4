"""A server's tools as tools of the house, and what they return as text for a model."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from itertools import count
from typing import Any

import mcp_types
from mcp_types import CallToolResult, ContentBlock
from pydantic_core import to_json

from ludus.authoring.mcp.server import McpServer
from ludus.authoring.tools import SchemaTool
from ludus.errors import ToolError

LONGEST_NAME = 64
NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
"""Characters that MCP allows in a tool's name and OpenAI-compatible APIs don't."""

Call = Callable[[str, Mapping[str, Any]], Awaitable[CallToolResult]]


def as_tools(listed: Iterable[mcp_types.Tool], server: McpServer, call: Call) -> list[SchemaTool]:
    """The tools that a server lists, each once.

    Args:
        listed: their schemas are passed on as they are; of their names, what APIs refuse becomes "_".
        server: gives the prefix of the names.
        call: a tool's name at the server, and arguments, to a result.
    """
    tools: dict[str, SchemaTool] = {}
    for tool in {tool.name: tool for tool in listed}.values():
        name = free_name(server.prefix + tool.name, tools)
        tools[name] = _as_tool(name, tool, server, call)
    return list(tools.values())


def free_name(wanted: str, taken: Container[str]) -> str:
    """A name that APIs accept; numbered where others, made shorter or plainer, have become the same.

    >>> free_name("files.read", {}), free_name("files/read", {"files_read"})
    ('files_read', 'files_read_2')
    """
    plain = NOT_IN_NAMES.sub("_", wanted)
    endings = ("" if number == 1 else f"_{number}" for number in count(1))
    names = (plain[: LONGEST_NAME - len(ending)] + ending for ending in endings)
    return next(name for name in names if name not in taken)


def _as_tool(name: str, listed: mcp_types.Tool, server: McpServer, call: Call) -> SchemaTool:
    async def run(arguments: dict[str, Any]) -> str:
        check_can_be_sent(arguments)
        result = await call(listed.name, arguments)
        text = as_text(result)
        if result.is_error:
            raise ToolError(server.without_secrets(text) or "the tool failed, and did not say why")
        return text

    return SchemaTool(name, listed.description or listed.title or "", listed.input_schema, run)


def check_can_be_sent(arguments: dict[str, Any]) -> None:
    """Raises ToolError for what JSON can't hold: inside the SDK it would end the connection that others use too."""
    try:
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
        to_json(arguments)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the arguments can't be sent: {error}") from None


def as_text(result: CallToolResult) -> str:
    """Text blocks, line by line; what is no text, by name; and structured content that the text doesn't repeat."""
    texts = [_block_text(block) for block in result.content]
    if result.structured_content is not None and not (texts and _repeated(result.structured_content, texts)):
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(texts)


def _block_text(block: ContentBlock) -> str:
    match block:
        case mcp_types.TextContent():
            return block.text
        case mcp_types.ImageContent() | mcp_types.AudioContent():
            return f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4} bytes]"
        case mcp_types.ResourceLink():
            return f"[resource {block.uri}: {block.description or block.title or block.name}]"
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents() as resource):
            return resource.text
        case mcp_types.EmbeddedResource(resource=resource):
            return f"[resource {resource.uri}, {resource.mime_type or 'of unknown type'}]"


def _repeated(structured: Any, texts: list[str]) -> bool:
    """Whether the text is the structured content again, which the protocol recommends: whole, an item a block, or, of
    an object that only wraps one value (it must be an object), the value."""
    values = [structured]
    if isinstance(structured, dict) and len(structured) == 1:
        values += structured.values()
    said = [_parsed(text) for text in texts]
    return any(value in ("\n".join(texts), said, *said) for value in values)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
