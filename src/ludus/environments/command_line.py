"""`CommandLineAgent`: the agent is a program. It is started once a rollout and told where its model is.

The program speaks OpenAI's or Anthropic's protocol to an address that belongs to its rollout alone; its calls are
recorded there, so whatever it is written in, it can be trained.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from ludus import agents
from ludus.agents.forward import PLACEHOLDER
from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.environments.computer import Computer, Result, ThisMachine
from ludus.environments.tunnel import Tunnel
from ludus.errors import Blame, RolloutError, RolloutTimeout, UsageError
from ludus.protocols import Model
from ludus.redaction import SECRETS
from ludus.types import MAIN_ROLE, Task

LAST_WORDS = 300
"""Characters of what a program said at its end that a failure quotes."""


class CommandLineAgent(Environment):
    """Base of environments whose agent is a program. A subclass has tasks, a command, and scorers.

    Scorers may ask for `sandbox`, to look at the files that the program left, and for `state`, which is how it ended.
    """

    command: str | Sequence[str] = ()
    """The program and its arguments. `{prompt}` in it is the task's prompt, `{python}` a Python interpreter. A text is
    split into words as a shell does it, but no shell runs."""
    folder: str = "."
    """Where it starts, in the sandbox."""
    time_limit_s: float = 600.0
    accepted: tuple[int, ...] | None = (0,)
    """Exit statuses with which the rollout counts; None is any. Any other fails it."""
    timeout_blame: Blame = "environment"
    """Whose fault it is that the program did not end in time."""
    pinned = ("temperature", "top_p", "top_k")
    fails_with_model = True

    def __init__(self, sandbox: str = "") -> None:
        """
        Args:
            sandbox: "none" runs programs on this machine, unprotected; otherwise a subclass's `setup` has to provide
                `ctx.sandbox`.
        """
        if sandbox not in ("", "none"):
            raise ValueError(f'sandbox must be "none" or left out, got {sandbox!r}')
        self.sandbox = sandbox

    # --- what subclasses may say ----------------------------------------------------------------------------------

    def files(self, task: Task) -> Mapping[str, str | bytes]:
        """Files that the program finds, by path."""
        return {}

    def environment(self, task: Task) -> Mapping[str, str]:
        """Environment variables beyond those that say where the model is."""
        return {}

    # --- the rollout ----------------------------------------------------------------------------------------------

    async def setup(self, ctx: Context) -> None:
        """Find a place to run in. Raises UsageError where there is none."""
        if ctx.sandbox is None and self.sandbox == "none":
            ctx.sandbox = ThisMachine()
        if ctx.sandbox is None:
            raise UsageError(
                f"{type(self).__name__} runs programs and has no sandbox: set ctx.sandbox in setup, or say "
                'sandbox="none" to run them on this machine unprotected'
            )

    async def teardown(self, ctx: Context) -> None:
        """Clean up what `setup` made."""
        if isinstance(ctx.sandbox, ThisMachine):
            ctx.sandbox.close()

    async def run(self, ctx: Context) -> None:
        """Run the program to its end. `ctx.state` is then how it ended.

        Raises:
            RolloutError: it could not be started, ended with a status that is not accepted, or never called its model.
            RolloutTimeout: it did not end in time.
        """
        for path, content in self.files(ctx.task).items():
            await ctx.sandbox.write(path, content.encode() if isinstance(content, str) else content)
        async with AsyncExitStack() as stack:
            prefix, host = await _way_out(ctx, stack, self.folder)
            argv = [*prefix, *self._argv(ctx)]
            variables = {**_addresses(ctx, host), **self.environment(ctx.task)}
            try:
                result: Result = await ctx.sandbox.exec(
                    argv, timeout_s=self.time_limit_s, env=variables, cwd=self.folder
                )
            except OSError as error:
                raise RolloutError(f"the program {argv[0]!r} can't be started: {error.strerror}", "sandbox") from None
        ctx.state = result
        await self._check(ctx, result)

    async def _check(self, ctx: Context, result: Result) -> None:
        said = SECRETS.hide((result.stderr or result.stdout).strip()[-LAST_WORDS:])
        if result.timed_out:
            raise RolloutTimeout(
                f"the program took more than {self.time_limit_s:g} s; its last words: {said!r}", self.timeout_blame
            )
        if self.accepted is not None and result.exit_code not in self.accepted:
            raise RolloutError(f"the program ended with status {result.exit_code}; its last words: {said!r}")
        if not await ctx.model.calls():
            raise RolloutError(f"the program ended without a call to its model; its last words: {said!r}")

    def _argv(self, ctx: Context) -> list[str]:
        words = shlex.split(self.command) if isinstance(self.command, str) else list(self.command)
        if not words:
            raise UsageError(f"{type(self).__name__} must have a command")
        known = {"{prompt}": _prompt(ctx.task), "{python}": _python(ctx.sandbox)}
        return [_filled(word, known) for word in words]


def _filled(word: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        if name in word:
            before, _, after = word.partition(name)  # what a prompt says is not looked at again
            return _filled(before, known) + value + _filled(after, known)
    return word


def _prompt(task: Task) -> str:
    return "\n\n".join(str(message.get("content") or "") for message in task.messages())


def _python(sandbox: Computer) -> str:
    return sys.executable if isinstance(sandbox, ThisMachine) else "python3"


async def _way_out(ctx: Context, stack: AsyncExitStack, folder: str) -> tuple[list[str], str]:
    """What has to stand before the command for it to reach the model, and the host that it calls; "" where it can call
    the address as it is.

    A sandbox without a network has `expose(path)`, which makes a Unix socket of the host reachable inside and says
    where: there is nothing else that the program can reach.
    """
    expose: Any = getattr(ctx.sandbox, "expose", None)
    if expose is None:
        return [], ""
    tunnel = await stack.enter_async_context(Tunnel(ctx.model.base_url))
    inside = await expose(str(tunnel.path))
    await ctx.sandbox.write(f"{folder}/ludus_forward.py", agents.source("forward"))
    return [_python(ctx.sandbox), "ludus_forward.py", str(inside), "--"], PLACEHOLDER


def _addresses(ctx: Context, host: str) -> dict[str, str]:
    """Environment variables that tell clients of each protocol where the model is, and for other roles ours."""
    variables: dict[str, str] = {}
    for role, model in ctx.models.items():
        base = _at_host(model, host)
        prefix = "LUDUS_" if role == MAIN_ROLE else f"LUDUS_{role.upper()}_"
        variables |= {f"{prefix}BASE_URL": base, f"{prefix}API_KEY": model.api_key}
    base = variables["LUDUS_BASE_URL"]
    return {
        **variables,
        "OPENAI_BASE_URL": base,
        "OPENAI_API_KEY": ctx.model.api_key,
        "ANTHROPIC_BASE_URL": base.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": ctx.model.api_key,
    }


def _at_host(model: Model, host: str) -> str:
    scheme, _, rest = model.base_url.partition("://")
    return f"{scheme}://{host}/{rest.partition('/')[2]}" if host else model.base_url
