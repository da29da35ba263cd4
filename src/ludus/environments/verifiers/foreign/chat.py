"""verifiers' harness `null`, a chat with tools, in this process instead of one of its own per rollout.

The loop is verifiers' own program text; only how it is started differs.
"""

# mypy: disable-error-code="import-not-found,misc"
# verifiers is installed where this runs, not where it is checked.

from __future__ import annotations

import argparse
import traceback
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any


def chat_in_process() -> None:
    """From now on harnesses `null` start no process where their runtime is this machine."""
    from verifiers.v1.harnesses.null.harness import NullHarness
    from verifiers.v1.runtimes import SubprocessConfig

    program = _program()
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
        config = {"mcpServers": servers}
        messages = _opening(*self.resolve_prompt(data))
        return await _run(program, ctx.model, endpoint, secret, tool_interception_url, config, messages)

    NullHarness.setup, NullHarness.launch = setup, launch_here


def _program() -> Any:
    """The program's functions. Its last lines run it only as a script."""
    from verifiers.v1.harnesses.utils.launch import CHAT_PROGRAM_SOURCE

    program = ModuleType("verifiers_chat_program")
    exec(compile(CHAT_PROGRAM_SOURCE, program.__name__, "exec"), vars(program))
    return program


def _opening(system_prompt: str | None, prompt: Any) -> list[dict[str, Any]]:
    from verifiers.v1.dialects.chat import message_to_wire

    messages: list[dict[str, Any]] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    if isinstance(prompt, str):
        return [*messages, {"role": "user", "content": prompt}] if prompt else messages
    return [*messages, *(message_to_wire(message) for message in prompt or ())]


async def _run(
    program: Any, model: str, endpoint: str, secret: str, gate: str | None, config: Any, messages: Any
) -> Any:
    """What the program's `main` does. Like a program, it fails by its exit status."""
    import httpx
    from openai import AsyncOpenAI
    from verifiers.v1.runtimes import ProgramResult

    args = argparse.Namespace(api_key=secret, tool_interception_url=gate or "", bash=False, edit=False, search=False)
    try:
        async with AsyncExitStack() as stack:
            http: Any = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, verify=False, timeout=None))
            client = AsyncOpenAI(base_url=endpoint, api_key=secret, http_client=http, max_retries=0)
            tools, dispatch, servers = (
                await program.connect_mcp(config, stack, set()) if config["mcpServers"] else ([], {}, {})
            )
            compactor = program.Compactor(client, model, tools, False, None)
            compactor.note_good(messages)
            await program.run_chat_loop(args, compactor, messages, dispatch, servers, http)
    except SystemExit as error:
        return ProgramResult(int(error.code or 0), "", "the model could not be reached")
    except Exception:  # noqa: BLE001 - the harness makes an error of it, as of the program's
        return ProgramResult(1, "", traceback.format_exc())
    return ProgramResult(0, "", "")
