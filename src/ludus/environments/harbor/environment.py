"""`Harbor`: every task folder below a folder, worked on with a shell in a sandbox, judged by its own tests."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.environments.harbor.furnishing import furnish, take_out
from ludus.environments.harbor.task import HarborTask, find_tasks, read_task, resolved
from ludus.environments.harbor.verifier import REWARD, NoReward, verify
from ludus.environments.sandboxed import end_processes
from ludus.environments.shell import Shell
from ludus.errors import Blame, ConfigError, RolloutError, UnknownName
from ludus.protocols import Sandbox
from ludus.sandbox.create import create
from ludus.sandbox.spec import Limits, SandboxSpec
from ludus.types import MAIN_ROLE, Message, Reward, Task, calls_tool, content_hash

SHOWN_PROBLEMS = 3
MIB = 1 << 20


@dataclass
class State:
    """One rollout's task, and what its tests said."""

    task: HarborTask
    scores: dict[str, float] = field(default_factory=dict)


class Harbor(Shell):
    """Tasks in Harbor's format: work with a shell in a sandbox, judged by the tests of each task."""

    name = "harbor"
    version = "1"
    system_prompt = (
        "You work on a Linux computer without network, with the tool bash. Each call is a new shell; files stay. "
        "When the task is done, say so in a reply without a tool call."
    )

    def __init__(
        self, folder: str, names: list[str] | None = None, train_share: float = 0.0, max_turns: int = 50,
        command_timeout_s: float = 120.0, pass_env: list[str] | None = None, sandbox: str = "auto",
    ) -> None:  # fmt: skip
        """
        Args:
            folder: a task, or a folder of tasks; its folders train and test, where it has them, are the splits.
            names: only these tasks.
            train_share: share of the tasks to train on, where the folder has no splits; by default all are for testing.
            max_turns: replies of the model.
            command_timeout_s: seconds one command may take.
            pass_env: variables of this process that tasks may have.
            sandbox: how it is contained, as for every `Sandboxed`; "docker" and the like use and build tasks' images.
        """
        super().__init__(sandbox)
        if not 0 <= train_share <= 1 or max_turns < 1 or not command_timeout_s > 0:
            raise ValueError("train_share must be from 0 to 1, max_turns at least 1, command_timeout_s more than 0")
        self.max_turns, self.command_timeout_s = max_turns, command_timeout_s
        self._allowed = frozenset(pass_env or ())
        self._tasks = _read_all(Path(folder), names, self._allowed, sandbox)
        self._by_split = _split(self._tasks, train_share)
        self.splits = tuple(self._by_split)
        self._blames: dict[str, Blame] = {}
        self._blaming = asyncio.Lock()

    def tasks(self, split: str) -> Iterator[Task]:
        """The tasks of a split, by name; tests and solutions are no part of them."""
        for name in self._by_split[split]:
            task = self._tasks[name]
            metadata = task.toml.metadata
            about = {key: str(metadata[key]) for key in ("difficulty", "category") if key in metadata}
            yield Task(prompt=task.instruction, info={"digest": task.digest} | about, id=name)

    def spec(self, task: Task) -> SandboxSpec:
        """As large as the task asks for, with the folders that it, its logs and its tests are in."""
        found = self._tasks[task.id]
        place = found.toml.environment
        wanted = {"memory_bytes": place.memory_mb, "disk_bytes": place.storage_mb}
        limits = Limits(**{key: mib * MIB for key, mib in wanted.items() if mib is not None})
        return SandboxSpec(limits=limits, folders=found.writable, image=found.image)

    async def setup(self, ctx: Context) -> None:
        """A sandbox with what the task's agent is to find."""
        task = self._tasks[ctx.task.id]
        ctx.state = State(task)
        await super().setup(ctx)
        await furnish(ctx.sandbox, task.base, task.env, task.toml.environment.healthcheck)

    async def run(self, ctx: Context) -> None:
        """Until the model is done or the task's time for it is over; what is there then is judged."""
        try:
            async with asyncio.timeout(ctx.state.task.toml.agent.timeout_sec) as limit:
                await super().run(ctx)
        except TimeoutError:
            if not limit.expired():
                raise
            ctx.stop = "timeout"

    def folder(self, task: Task) -> str:
        """The task's own working folder."""
        return self._tasks[task.id].workdir

    def variables(self, task: Task) -> Mapping[str, str]:
        """Those that the task asks for."""
        return self._tasks[task.id].env

    @reward
    async def verified(self, ctx: Context) -> float:
        """The reward that the task's tests give. Tests that give none fail the rollout, never score it 0."""
        state: State = ctx.state
        with TemporaryDirectory(prefix="ludus-harbor-") as folder:
            taken = await self._finish(ctx.sandbox, state.task, Path(folder))
            try:
                state.scores = await self._verify(ctx.task, taken)
            except NoReward as error:
                blame = await self._blame(ctx.task)
                raise RolloutError(str(error), "scorer", blame) from None
        return state.scores[REWARD]

    @metric
    def parts(self, state: State) -> list[Reward]:
        """The other numbers that the tests wrote."""
        return [Reward(name, value, 0.0, MAIN_ROLE) for name, value in state.scores.items() if name != REWARD]

    def demonstrate(self, task: Task) -> list[str | Message] | None:
        """The task's own solution, where it is one script, as one command."""
        found = self._tasks[task.id]
        path = found.folder / "solution" / "solve.sh"
        if not path.is_file() or len(list(path.parent.iterdir())) > 1:
            return None
        env = resolved(found.toml.solution.env, self._allowed, f"{found.folder / 'task.toml'}, [solution.env]")
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in env.items())
        return [calls_tool("bash", command=exports + path.read_text(encoding="utf-8")), "Done."]

    async def _finish(self, sandbox: Sandbox, task: HarborTask, folder: Path) -> dict[str, Path]:
        """End the agent's sandbox, and keep what the verifier is to see of it."""
        await end_processes(sandbox)
        for hook in task.toml.verifier.collect:
            await sandbox.exec(hook.command, timeout_s=hook.timeout_sec, env=task.env, cwd=task.workdir)
        taken = await take_out(sandbox, task.artifacts, folder)
        await sandbox.kill()
        return taken

    async def _verify(self, task: Task, taken: Mapping[str, Path]) -> dict[str, float]:
        """What the tests say in a sandbox of their own. Raises NoReward."""
        found = self._tasks[task.id]
        if found.verifier_image == found.image:
            sandbox = await self.new_sandbox(task)
        else:
            spec = msgspec.structs.replace(self.spec(task), image=found.verifier_image, tier=self.sandbox)
            sandbox = await create(spec)
        try:
            return await verify(found, taken, sandbox)
        finally:
            await sandbox.kill()

    async def _blame(self, task: Task) -> Blame:
        """Whose fault it is that tests gave no reward: the policy's, if without its files they give one.

        Otherwise whoever breaks the tests would be excluded instead of scored, and learn to.
        """
        async with self._blaming:  # of many that fail at once, one finds out
            if task.id not in self._blames:
                try:
                    await self._verify(task, {})
                    self._blames[task.id] = "policy"
                except NoReward:
                    self._blames[task.id] = "environment"
            return self._blames[task.id]


def _read_all(folder: Path, names: list[str] | None, allowed: frozenset[str], kind: str) -> dict[str, HarborTask]:
    """Raises ConfigError with the first few problems, one line each, and UnknownName."""
    found = find_tasks(folder)
    for name in names or ():
        if name not in found:
            raise UnknownName("task", name, found)
    tasks, problems = {}, []
    for name in names or found:
        try:
            tasks[name] = read_task(found[name], name, allowed, kind)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        more = f"\nand {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        few = f"\n(--arg 'names=[...]' takes some of {len(found)})" if len(found) > len(problems) else ""
        raise ConfigError("\n".join(problems[:SHOWN_PROBLEMS]) + more + few)
    return tasks


def _split(tasks: dict[str, HarborTask], train_share: float) -> dict[str, list[str]]:
    """Names by split: the folders train and test, or by the hash of the name, or all for testing."""
    heads = {name.partition("/")[0] for name in tasks}
    if heads <= {"train", "test"} and all("/" in name for name in tasks):
        return {head: [name for name in tasks if name.startswith(f"{head}/")] for head in sorted(heads, reverse=True)}
    if not train_share:
        return {"test": list(tasks)}
    train = [name for name in tasks if int(content_hash(name)[:8], 16) < train_share * 2**32]
    return {"train": train, "test": [name for name in tasks if name not in train]}
