"""Tool servers that all rollouts share, in a thread of this process instead of a process of their own.

A call costs a twentieth of what it costs over HTTP, where verifiers also opens a connection for each rollout. A tool that
holds up its thread holds up the other calls, as it would its server; the rollouts' own loop goes on. Servers that
are anything but plain toolsets on this machine are left to verifiers.
"""

# mypy: disable-error-code="import-not-found,misc"
# verifiers is installed where this runs, not where it is checked.

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

HERE = "here:"
"""Before a server's name: the address of one that runs here."""
SESSION: ContextVar[Any] = ContextVar("session", default=None)
"""The rollout that calls a tool, as verifiers knows it."""


class Toolbox:
    """Servers in a thread with a loop of its own, where they are also set up: what they open may belong to a thread."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()

    @asynccontextmanager
    async def serving(self, toolsets: list[Any]) -> AsyncIterator[dict[str, Any]]:
        """Addresses by name, while they run."""
        watch = asyncio.get_running_loop().get_task_factory()
        self._loop.set_task_factory(watch.elsewhere() if watch is not None else None)  # type: ignore[attr-defined]
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            for toolset in toolsets:
                server = self.servers[HERE + toolset.server_name] = Server(toolset, self)
                await self.do(self._stack.enter_async_context(server.running()))
            yield {toolset.server_name: HERE + toolset.server_name for toolset in toolsets}
        finally:
            self.servers.clear()
            await self.do(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(thread.join)
            self._loop.close()

    async def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine over there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))


class Server:
    """One toolset.

    Args:
        toolset: as the taskset made it; a fresh one is set up.
        toolbox: where it runs.
    """

    def __init__(self, toolset: Any, toolbox: Toolbox) -> None:
        self._toolset = type(toolset)(toolset.config)
        self._toolset._pull_state, self._toolset._push_state = self._pull, self._push
        self._mcp, self._toolbox = as_mcp(self._toolset), toolbox
        self._tools: Any = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Set up, and torn down at last."""
        async with self._toolset._exit_stack:
            try:
                await self._toolset.setup()
            except SystemExit as error:
                raise RuntimeError(f"the setup of its tools called sys.exit({error.code!r})") from error
            self._tools = SimpleNamespace(tools=await self._mcp.list_tools())
            yield

    async def run(self, operation: Any) -> Any:
        """What the chat program wants of a connection."""
        return await operation(self)

    async def aclose(self) -> None:
        """Nothing belongs to one rollout."""

    async def list_tools(self) -> Any:
        """As an MCP client's."""
        return self._tools

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """As an MCP client's: what the tool raises is its result."""
        return await self._toolbox.do(self._call(name, arguments))

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        from mcp.shared.exceptions import MCPError
        from mcp.types import CallToolResult, TextContent

        try:
            return await self._mcp.call_tool(name, arguments)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - told to the model, as the server would
            return CallToolResult(content=[TextContent(type="text", text=str(error))], is_error=True)

    async def _pull(self) -> Any:
        session = SESSION.get()
        return self._toolset._state_adapter.validate_json(session.state_adapter.dump_json(session.trace.state))

    async def _push(self, before: bytes) -> None:
        session, after = SESSION.get(), self._toolset._state_adapter.dump_json(self._toolset.state)
        if after != before and not session.released:
            session.trace.state = session.state_adapter.validate_json(after)


def as_mcp(toolset: Any) -> Any:
    """The MCP server with a toolset's tools."""
    from mcp.server.mcpserver import MCPServer

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    mcp = MCPServer(toolset.server_name or type(toolset).__name__)
    root.handlers[:] = handlers  # it takes over the log of the whole process
    root.setLevel(level)
    toolset.register(mcp)
    return mcp


def may_run_here(toolset: Any) -> bool:
    """Whether nothing is lost if it does."""
    from verifiers.v1.mcp.server import ServerBase
    from verifiers.v1.mcp.toolset import Toolset
    from verifiers.v1.runtimes import SubprocessConfig

    kind, config = type(toolset), toolset.config
    plain = kind.register is Toolset.register and kind._serve is ServerBase._serve
    if not plain or config.url or config.runtime != SubprocessConfig():
        return False
    # A tool that looks at the request it came in needs one.
    return not any(tool.context_kwarg or tool.resolved_params for tool in as_mcp(toolset)._tool_manager.list_tools())


def share_here(env: Any) -> Toolbox:
    """From now on an environment's shared tools run here, where they may."""
    from verifiers.v1.env import serve_shared
    from verifiers.v1.mcp.launch import SharedToolServer

    toolbox = Toolbox()

    @asynccontextmanager
    async def shared_tools() -> AsyncIterator[dict[str, Any]]:
        toolsets = env.taskset.toolsets(env.taskset.config)
        names = [toolset.server_name for toolset in toolsets]
        here = [each for each in toolsets if names.count(each.server_name) == 1 and may_run_here(each)]
        others = [toolset for toolset in toolsets if toolset not in here]
        async with (
            serve_shared(others, harness_is_local=env._runs_local()) as served,
            toolbox.serving(here) as addresses,
        ):
            shared = {name: SharedToolServer(url=url, local=False, external=True) for name, url in addresses.items()}
            yield {name: (served | shared)[name] for name in names}

    env.shared_tools = shared_tools
    return toolbox
