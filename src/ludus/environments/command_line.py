"""`CommandLineAgent`: the agent is a program. It is started once a rollout and told where its model is.

The program speaks OpenAI's or Anthropic's protocol to an address that belongs to its rollout alone; its calls are
recorded there, so whatever it is written in, it can be trained.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from ludus.authoring.context import Context
from ludus.environments.sandboxed import Sandboxed
from ludus.errors import Blame, RolloutError, RolloutTimeout, UsageError
from ludus.protocols import SandboxResult
from ludus.redaction import SECRETS
from ludus.sandbox.spec import SandboxSpec
from ludus.types import MAIN_ROLE, Task

LAST_WORDS = 300
"""Characters of what a program said at its end that a failure quotes."""


class CommandLineAgent(Sandboxed):
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

    # --- what subclasses may say ----------------------------------------------------------------------------------

    def files(self, task: Task) -> Mapping[str, str | bytes]:
        """Files that the program finds, by path."""
        return {}

    def environment(self, task: Task) -> Mapping[str, str]:
        """Environment variables beyond those that say where the model is."""
        return {}

    def spec(self, task: Task) -> SandboxSpec:
        """Without a network but for the way to the model."""
        return SandboxSpec(network=(), files=self.files(task))

    # --- the rollout ----------------------------------------------------------------------------------------------

    async def run(self, ctx: Context) -> None:
        """Run the program to its end. `ctx.state` is then how it ended.

        Raises:
            RolloutError: it ended with a status that is not accepted, or never called its model.
            RolloutTimeout: it did not end in time.
        """
        variables = {**await _addresses(ctx), **self.environment(ctx.task)}
        ctx.state = await ctx.sandbox.exec(
            self._argv(ctx.task), timeout_s=self.time_limit_s, env=variables, cwd=self.folder
        )
        await self._check(ctx, ctx.state)

    async def _check(self, ctx: Context, result: SandboxResult) -> None:
        said = SECRETS.hide((result.stderr or result.stdout).strip()[-LAST_WORDS:])
        if result.timed_out:
            raise RolloutTimeout(
                f"the program took more than {self.time_limit_s:g} s; its last words: {said!r}", self.timeout_blame
            )
        if self.accepted is not None and result.exit_code not in self.accepted:
            raise RolloutError(f"the program ended with status {result.exit_code}; its last words: {said!r}")
        if not await ctx.model.calls():
            raise RolloutError(f"the program ended without a call to its model; its last words: {said!r}")

    def _argv(self, task: Task) -> list[str]:
        words = shlex.split(self.command) if isinstance(self.command, str) else list(self.command)
        if not words:
            raise UsageError(f"{type(self).__name__} must have a command")
        known = {"{prompt}": _prompt(task), "{python}": "python3"}
        return [_filled(word, known) for word in words]


def _filled(word: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        if name in word:
            before, _, after = word.partition(name)  # what a prompt says is not looked at again
            return _filled(before, known) + value + _filled(after, known)
    return word


def _prompt(task: Task) -> str:
    return "\n\n".join(str(message.get("content") or "") for message in task.messages())


async def _addresses(ctx: Context) -> dict[str, str]:
    """Environment variables that tell clients of each protocol where the model is, and for other roles ours."""
    variables: dict[str, str] = {}
    for role, model in ctx.models.items():
        prefix = "LUDUS_" if role == MAIN_ROLE else f"LUDUS_{role.upper()}_"
        variables[f"{prefix}BASE_URL"] = await ctx.sandbox.reach(model.base_url)
        variables[f"{prefix}API_KEY"] = model.api_key
    base = variables["LUDUS_BASE_URL"]
    return {
        **variables,
        "OPENAI_BASE_URL": base,
        "OPENAI_API_KEY": ctx.model.api_key,
        "ANTHROPIC_BASE_URL": base.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": ctx.model.api_key,
    }
