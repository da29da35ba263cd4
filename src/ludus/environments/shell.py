"""`Shell`: the agent works on a Linux computer with the tool `bash`."""

from __future__ import annotations

from collections.abc import Mapping

from ludus.authoring.declare import tool
from ludus.environments.sandboxed import Sandboxed
from ludus.environments.telling import check_text, ran, told
from ludus.protocols import Sandbox
from ludus.types import Task


class Shell(Sandboxed):
    """Base of environments whose agent works with a shell in a sandbox. A subclass has tasks and rewards.

    Each call is a new shell; files stay, and so does what was started in the background.
    """

    system_prompt = (
        "You work on a Linux computer with the tool bash. Each call is a new shell; files stay. When the task is done, "
        "say so in a reply without a tool call."
    )
    max_turns = 50
    command_timeout_s: float = 120.0
    """Seconds one command may take; then everything that runs in the sandbox is killed, and the model is told."""

    def folder(self, task: Task) -> str:
        """Where commands begin, in the sandbox."""
        return "."

    def variables(self, task: Task) -> Mapping[str, str]:
        """Environment variables of commands."""
        return {}

    @tool(in_order=True)
    async def bash(self, command: str, task: Task, sandbox: Sandbox) -> str:
        """Run a command with bash in the task's folder, and read what it prints."""
        check_text(command, "a command")
        running = sandbox.exec(
            ["bash", "-c", command], timeout_s=self.command_timeout_s, env=self.variables(task), cwd=self.folder(task)
        )
        result = await ran(running)
        if result.timed_out:
            return told(result, f"(stopped after {self.command_timeout_s:g} s, with everything that ran beside it)")
        return told(result, f"(exit code {result.exit_code})" if result.exit_code else "")
