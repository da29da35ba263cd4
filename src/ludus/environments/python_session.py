"""`PythonSession`: the agent works with Python that remembers, as at a prompt."""

from __future__ import annotations

from ludus.authoring.declare import tool
from ludus.environments.sandboxed import Sandboxed
from ludus.environments.telling import check_text, ran, told
from ludus.protocols import Sandbox


class PythonSession(Sandboxed):
    """Base of environments whose agent works with a Python session in a sandbox. A subclass has tasks and rewards.

    Variables and imports stay from call to call. A call that runs out of time, exits or crashes ends the session; the
    model is told so, and its next call begins a new one with the same files.
    """

    system_prompt = (
        "You work with the tool python, whose variables and files stay from call to call. When the task is done, say so "
        "in a reply without a tool call."
    )
    max_turns = 50
    code_timeout_s: float = 60.0
    """Seconds one call may take."""

    @tool(in_order=True)
    async def python(self, code: str, sandbox: Sandbox) -> str:
        """Run Python code, and read what it prints and the value of an expression at its end."""
        check_text(code, "code")
        result = await ran(sandbox.python(code, timeout_s=self.code_timeout_s))
        return told(result)
