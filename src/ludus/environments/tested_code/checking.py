"""Code checked by tests in a scorer of any environment: the verdict alone, without the rest of `TestedCode`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ludus.environments.tested_code.environment import code_of
from ludus.environments.tested_code.judging import Verdict, judge
from ludus.environments.tested_code.kinds import read_tests
from ludus.protocols import Sandbox
from ludus.sandbox.create import create

SOLUTION = "solution.py"


async def check_code(
    reply: str,
    tests: Any,
    *,
    new_sandbox: Callable[[], Awaitable[Sandbox]] = create,
    command: Sequence[str] = ("python3", SOLUTION),
    time_limit_s: float = 10.0,
) -> Verdict:
    """Run tests on the code in a reply: its last block, or all of it where there is none.

    The code is alone in its sandbox, and can neither read its tests nor end them; the sandboxes are gone afterwards.

    Args:
        reply: what a model wrote.
        tests: as in `TestedCode`: texts of Python, calls with what they return, inputs with outputs.
        new_sandbox: makes a sandbox; by default the best that this machine can do.
        command: how the code runs as a program.
        time_limit_s: for all tests; what has not passed by then has not passed.

    Raises:
        ConfigError: the tests are none.
        SandboxUnavailable: this machine can't contain code.
        SandboxFailed: through no fault of the code.
    """
    code = code_of(reply).encode(errors="replace")

    async def furnish(sandbox: Sandbox) -> None:
        await sandbox.write(SOLUTION, code)

    return await judge(
        read_tests(tests), new_sandbox, furnish, path=SOLUTION, command=command, time_limit_s=time_limit_s
    )
