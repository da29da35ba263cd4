"""An MCP server with one tool, made with the official SDK: over standard input and output, or, with `http`, over HTTP,
and then its address is the first line that it prints."""

import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("look", log_level="ERROR")


@server.tool()
async def look(place: str) -> str:
    """What is there."""
    return f"nothing in the {place}"


def main():
    if sys.argv[1:] != ["http"]:
        server.run("stdio")
        return
    bound = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="error")
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
