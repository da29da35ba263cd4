"""`TestedCode` and `TestedFiles`: a model writes code, and tests that it never sees judge it."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from ludus.authoring.context import Context
from ludus.authoring.declare import reward
from ludus.environments.sandboxed import Sandboxed, end_processes
from ludus.environments.shell import Shell
from ludus.environments.tested_code.judging import judge
from ludus.environments.tested_code.kinds import read_tests
from ludus.protocols import Sandbox
from ludus.sandbox.create import create
from ludus.types import Message, Reward, Rollout, Task, calls_tool

FENCED = re.compile(r"^```[^\n`]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)
END = "END_OF_THE_FILE"
PATIENCE = 6


class TestedCode(Sandboxed):
    """Base of environments that ask for code. A subclass has tasks, with tests in `info`; the reward is here.

    Tests are texts of Python (assertions, or a file of `test_...` functions), calls with what they return, or inputs with
    outputs: docs/tested-code.md. The code, and nothing else, is put into a fresh sandbox; its tests stay out of it.
    """

    __test__ = False  # it is no test of pytest's, though it is called so
    solution: str = "solution.py"
    """The file that the code is put into, in the sandbox that it is tested in."""
    command: Sequence[str] = ()
    """How it runs as a program; by default python3 runs `solution`."""
    time_limit_s: float = 10.0
    """Seconds of processor time that a process of the solution may use in all its tests together; what has not passed by
    then has not passed. On a clock it may take `PATIENCE` times as long, because a busy machine is not the code's fault."""
    partial: bool = False
    """Whether each test counts for its share of the reward, or only all of them together."""

    def tests(self, task: Task) -> Any:
        """The tests of a task: a list of JSON values."""
        return task.info.get("tests")

    def code(self, task: Task, rollout: Rollout) -> str:
        """The code that a rollout wrote."""
        return code_of(rollout.reply)

    async def setup(self, ctx: Context) -> None:
        """A sandbox, where there are tools to use it."""
        if ctx.tools:
            await super().setup(ctx)

    @reward
    async def passed(self, task: Task, rollout: Rollout) -> list[Reward]:
        """1 if all tests are passed, or their share where that counts; the share is a metric too."""
        code = self.code(task, rollout).encode(errors="replace")
        return await self._judged(task, lambda sandbox: sandbox.write(self.solution, code))

    def demonstrate(self, task: Task) -> Any:
        """The known answer, where a task has one: so its tests are known to be right."""
        return f"```python\n{task.answer.rstrip()}\n```" if isinstance(task.answer, str) else None

    async def _fresh(self, task: Task) -> Sandbox:
        """A sandbox to test in."""
        spec = self.spec(task)
        limits = msgspec.structs.replace(spec.limits, cpu_s=min(spec.limits.cpu_s, math.ceil(self.time_limit_s)))
        return await create(msgspec.structs.replace(spec, limits=limits, tier=self.sandbox))

    async def _judged(self, task: Task, furnish: Callable[[Sandbox], Awaitable[None]]) -> list[Reward]:
        """Raises ConfigError: the task's tests are none."""
        verdict = await judge(
            read_tests(self.tests(task)), lambda: self._fresh(task), furnish, path=self.solution,
            command=self.command or ("python3", self.solution), time_limit_s=PATIENCE * self.time_limit_s,
        )  # fmt: skip
        value = verdict.share if self.partial else float(verdict.share == 1)
        return [Reward("passed", value), Reward("tests_passed", verdict.share, 0.0)]


class TestedFiles(TestedCode):
    """The same for agents that work in a sandbox: `class Mine(TestedFiles, Shell)`. What counts is in their files.

    When the agent has finished, its processes are ended, the artefacts are taken out, and its sandbox is gone before a test
    begins.
    """

    artefacts: tuple[str, ...] = ("solution.py",)
    """Files and folders that the tested code consists of."""

    async def setup(self, ctx: Context) -> None:
        """A sandbox."""
        await Sandboxed.setup(self, ctx)

    @reward
    async def passed(self, task: Task, sandbox: Sandbox) -> list[Reward]:  # type: ignore[override]
        """As for replies."""
        with TemporaryDirectory(prefix="ludus-tested-") as folder:
            await end_processes(sandbox)
            taken = await _take_out(sandbox, self.artefacts, Path(folder))
            await sandbox.kill()

            async def furnish(fresh: Sandbox) -> None:
                for path, place in taken.items():
                    await fresh.upload(place, path)

            return await self._judged(task, furnish)

    def demonstrate(self, task: Task) -> list[str | Message] | None:
        """The known answer, where a task has one, written with the tool that is there."""
        if not isinstance(task.answer, str):
            return None
        code = task.answer.rstrip() + "\n"
        if isinstance(self, Shell):
            return [calls_tool("bash", command=f"cat > {self.solution} << '{END}'\n{code}{END}"), "Done."]
        return [calls_tool("python", code=f"_ = open({self.solution!r}, 'w').write({code!r})"), "Done."]


def code_of(reply: str) -> str:
    """The last block of code in a reply, or all of it where there is none.

    >>> code_of("Like so:\\n```python\\nx = 1\\n```\\nDone."), code_of("x = 1")
    ('x = 1\\n', 'x = 1')
    """
    blocks: list[str] = FENCED.findall(reply)
    return blocks[-1] if blocks else reply


async def _take_out(sandbox: Sandbox, paths: Sequence[str], folder: Path) -> dict[str, Path]:
    """Copy what is there of some paths out of a sandbox; by path, where it is now."""
    taken = {}
    for number, path in enumerate(paths):
        if (await sandbox.exec(["test", "-e", path])).exit_code == 0:
            taken[path] = folder / str(number)
            await sandbox.download(path, taken[path])
    return taken
