"""verifiers' harness `null`, a chat with tools, in this process instead of one of its own per rollout.

The loop is verifiers' own program text, and its calls are handled by verifiers' own interception server, whose hooks and
records they need; only that no process is started and no socket lies between the two.
"""

# mypy: disable-error-code="import-not-found,misc"
# verifiers is installed where this runs, not where it is checked.

from __future__ import annotations

import argparse
import asyncio
import json
import traceback
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

from .toolbox import SESSION, Toolbox

SERVERS: dict[str, Any] = {}
"""Interception servers by the secrets of the rollouts that are registered there."""


def chat_in_process(toolbox: Toolbox) -> None:
    """From now on harnesses `null` start no process where their runtime is this machine.

    Args:
        toolbox: the tools that they share.
    """
    from verifiers.v1.harnesses.null.harness import NullHarness
    from verifiers.v1.runtimes import SubprocessConfig

    program = _program(toolbox)
    _know_servers()
    set_up, launch = NullHarness.setup, NullHarness.launch

    async def setup(self: Any, runtime: Any) -> None:
        if not isinstance(runtime.config, SubprocessConfig):
            await set_up(self, runtime)

    async def launch_here(
        self: Any, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: Any, data: Any,
        tool_interception_url: str | None = None,
    ) -> Any:  # fmt: skip
        if not isinstance(runtime.config, SubprocessConfig):
            given = (ctx, trace, runtime, endpoint, secret, mcp_urls, data)
            return await launch(self, *given, tool_interception_url=tool_interception_url)
        servers = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
        messages = _opening(*self.resolve_prompt(data))
        return await _run(program, ctx.model, secret, tool_interception_url, servers, messages)

    NullHarness.setup, NullHarness.launch = setup, launch_here


def _program(toolbox: Toolbox) -> Any:
    """The program's functions. Its last lines run it only as a script."""
    from verifiers.v1.harnesses.utils.launch import CHAT_PROGRAM_SOURCE

    program = ModuleType("verifiers_chat_program")
    exec(compile(CHAT_PROGRAM_SOURCE, program.__name__, "exec"), vars(program))

    async def chat(client: Endpoint, model: str, messages: Any, tools: Any, *, tool_choice: str | None = None) -> Any:
        request = {"model": model, "messages": messages}
        if tools:
            request["tools"] = tools
            request |= {"tool_choice": tool_choice} if tool_choice is not None else {}
        return await client.complete(request)

    connect = program.MCPConnection
    program.MCPConnection = lambda spec: toolbox.servers.get(spec["url"]) or connect(spec)  # type: ignore[attr-defined]
    program.chat = chat  # type: ignore[attr-defined]
    return program


def _know_servers() -> None:
    from verifiers.v1.interception.server import InterceptionServer

    register, unregister = InterceptionServer.register, InterceptionServer.unregister

    def registered(self: Any, session: Any) -> tuple[str, str]:
        secret, state_secret = register(self, session)
        SERVERS[secret] = self
        return secret, state_secret

    def unregistered(self: Any, model_secret: str, state_secret: str) -> None:
        SERVERS.pop(model_secret, None)
        unregister(self, model_secret, state_secret)

    InterceptionServer.register, InterceptionServer.unregister = registered, unregistered


class Endpoint:
    """The chat completions of a rollout's interception server, without a socket.

    Args:
        secret: of the rollout.
    """

    def __init__(self, secret: str) -> None:
        from verifiers.v1.dialects import DIALECTS

        (dialect,) = (each for each in DIALECTS if Request.path in each.routes)
        self._secret = secret
        self._handle = SERVERS[secret]._handler_for(dialect)

    async def complete(self, request: dict[str, Any]) -> Any:
        """A `ChatCompletion`. Raises `openai.APIStatusError`."""
        from openai.types.chat import ChatCompletion

        asked = Request(json.dumps(request).encode(), self._secret)
        response = await asyncio.create_task(self._handle(asked))  # a task that the server may cancel
        if response.status != 200:
            raise _refused(response.status, response.body)
        return ChatCompletion.model_validate_json(response.body)


class Request(dict[Any, Any]):
    """What the server's handler reads of an `aiohttp.web.Request`; handlers keep notes in it."""

    path = "/v1/chat/completions"

    def __init__(self, body: bytes, secret: str) -> None:
        super().__init__()
        self._read_bytes: bytes | None = body
        self.headers = {"Authorization": f"Bearer {secret}"}

    async def read(self) -> bytes:
        """The body."""
        return self._read_bytes or b""


def _refused(status: int, body: bytes) -> Exception:
    import httpx
    from openai import APIStatusError

    response = httpx.Response(status, content=body, request=httpx.Request("POST", f"http://interception{Request.path}"))
    return APIStatusError(body.decode(errors="replace"), response=response, body=None)  # type: ignore[arg-type]


def _opening(system_prompt: str | None, prompt: Any) -> list[dict[str, Any]]:
    from verifiers.v1.dialects.chat import message_to_wire

    messages: list[dict[str, Any]] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    if isinstance(prompt, str):
        return [*messages, {"role": "user", "content": prompt}] if prompt else messages
    return [*messages, *(message_to_wire(message) for message in prompt or ())]


async def _run(program: Any, model: str, secret: str, gate: str | None, servers: Any, messages: Any) -> Any:
    """What the program's `main` does. Like a program, it fails by its exit status."""
    import httpx
    from verifiers.v1.runtimes import ProgramResult

    args = argparse.Namespace(api_key=secret, tool_interception_url=gate or "", bash=False, edit=False, search=False)
    try:
        async with AsyncExitStack() as stack:
            http: Any = None
            if gate:
                http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, verify=False, timeout=None))
            SESSION.set(SERVERS[secret].sessions[secret])
            tools, dispatch, connections = await program.connect_mcp({"mcpServers": servers}, stack, set())
            compactor = program.Compactor(Endpoint(secret), model, tools, False, None)
            compactor.note_good(messages)
            await program.run_chat_loop(args, compactor, messages, dispatch, connections, http)
    except Exception:  # noqa: BLE001 - the harness makes an error of it, as of the program's
        return ProgramResult(1, "", traceback.format_exc())
    return ProgramResult(0, "", "")
