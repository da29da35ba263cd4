"""The sandbox that a task runs in: what is needed of one, how it is furnished, and what is carried from one to another."""

from __future__ import annotations

import asyncio
import fnmatch
import posixpath
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ludus.environments.harbor.image import Base
from ludus.environments.harbor.task import Artifact, Healthcheck
from ludus.errors import RolloutError

FOLDERS = ("/logs/agent", "/logs/artifacts", "/logs/verifier")
"""They are there for every task, as in Harbor."""
EMPTY = """
for path; do
  if [ -d "$path" ] && [ ! -L "$path" ]; then find "$path" -mindepth 1 -delete; else rm -f "$path"; fi || exit
done
"""
PREPARING_S = 60.0
MOST_SAID = 400
"""Characters of a failed command's output that an error quotes."""


class Outcome(Protocol):
    """What became of a command."""

    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...
    @property
    def exit_code(self) -> int: ...
    @property
    def timed_out(self) -> bool: ...


class Computer(Protocol):
    """What a task needs of its sandbox; those of `ludus.sandbox` have it."""

    async def exec(
        self, command: Sequence[str] | str, *, timeout_s: float = 60, env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Outcome:  # fmt: skip
        """Run a program, or text with a shell. One that runs out of time ends every process; the files stay."""
        ...

    async def read(self, path: str) -> bytes:
        """A regular file."""
        ...

    async def upload(self, host_path: Path, path: str) -> None:
        """Copy a file or folder in."""
        ...

    async def download(self, path: str, host_path: Path) -> None:
        """Copy a file, or the regular files below a folder, to a place where nothing is yet."""
        ...


async def furnish(computer: Computer, base: Base, env: Mapping[str, str], healthcheck: Healthcheck | None) -> None:
    """Make the folders and files of a task's base, and wait until it says that it is ready. Raises RolloutError."""
    await must(computer, ["mkdir", "-p", *FOLDERS, base.workdir, *base.folders], "make the task's folders")
    for path, place in base.files:
        await computer.upload(path, place)
    if healthcheck is not None:
        await _become_healthy(computer, healthcheck, env, base.workdir)


async def make_room(computer: Computer, *paths: str) -> None:
    """Leave nothing at these places but empty folders, which may be mounted there. Raises RolloutError."""
    await must(computer, ["sh", "-c", EMPTY, "sh", *paths], f"make room for {' and '.join(paths)}")


async def must(computer: Computer, command: Sequence[str], what: str) -> None:
    """Run a command that is part of the set-up. Raises RolloutError where it fails, which no model is to blame for."""
    outcome = await computer.exec(command, timeout_s=PREPARING_S)
    if outcome.exit_code or outcome.timed_out:
        raise RolloutError(f"can't {what} in the sandbox: {said(outcome)}", "sandbox", "infrastructure")


def said(outcome: Outcome) -> str:
    """How a command ended and the last of what it said, in one line."""
    how = "it ran out of time" if outcome.timed_out else f"exit code {outcome.exit_code}"
    text = " ".join(f"{outcome.stdout}\n{outcome.stderr}".split())
    return f"{how}: {text[-MOST_SAID:]}" if text else how


async def end_processes(computer: Computer) -> None:
    """End whatever the agent left running, so that nothing changes any more."""
    await computer.exec(["sleep", "60"], timeout_s=0.01)


async def take_out(computer: Computer, artifacts: Sequence[Artifact], folder: Path) -> dict[str, Path]:
    """Copy artifacts that are there out of a sandbox; by their place in it, where they are now."""
    taken: dict[str, Path] = {}
    for number, entry in enumerate(artifacts):
        there = await computer.exec(["test", "-e", entry.source], timeout_s=PREPARING_S)
        if there.exit_code == 0:
            taken[entry.source] = folder / str(number)
            await computer.download(entry.source, taken[entry.source])
            await asyncio.to_thread(_leave_out, taken[entry.source], entry.exclude)
    return taken


async def bring_in(computer: Computer, taken: Mapping[str, Path]) -> None:
    """Copy artifacts to where they were; what a base has there makes room for them."""
    for source, path in taken.items():
        await make_room(computer, source)
        await must(computer, ["mkdir", "-p", source if path.is_dir() else posixpath.dirname(source)], "make a folder")
        await computer.upload(path, source)


def _leave_out(path: Path, patterns: Sequence[str]) -> None:
    """Remove what matches, at any depth, by its name or by its path in the artifact."""
    for found in sorted(path.rglob("*"), reverse=True) if patterns else ():
        names = (found.name, found.relative_to(path).as_posix())
        if any(fnmatch.fnmatch(name, pattern.strip("/")) for name in names for pattern in patterns):
            shutil.rmtree(found) if found.is_dir() else found.unlink()


async def _become_healthy(computer: Computer, check: Healthcheck, env: Mapping[str, str], workdir: str) -> None:
    for attempt in range(check.retries):
        outcome = await computer.exec(check.command, timeout_s=check.timeout_sec, env=env, cwd=workdir)
        if outcome.exit_code == 0 and not outcome.timed_out:
            return
        if attempt + 1 < check.retries:
            await asyncio.sleep(check.interval_sec)
    raise RolloutError(
        f"the task's healthcheck failed {check.retries} times: {said(outcome)}", "sandbox", "environment"
    )
