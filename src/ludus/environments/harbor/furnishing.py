"""The sandbox that a task runs in: how it is furnished, and what is carried from one to another."""

from __future__ import annotations

import asyncio
import fnmatch
import posixpath
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ludus.environments.harbor.image import Base
from ludus.environments.harbor.task import Artifact, Healthcheck
from ludus.errors import RolloutError
from ludus.protocols import Sandbox, SandboxResult

LOGS = ("/logs/agent", "/logs/artifacts", "/logs/verifier")
"""They are there for every task, as in Harbor."""
EMPTY = """
for path; do
  if [ -d "$path" ] && [ ! -L "$path" ]; then find "$path" -mindepth 1 -delete; else rm -f "$path"; fi || exit
done
"""
PREPARING_S = 60.0
MOST_SAID = 400
"""Characters of a failed command's output that an error quotes."""


async def furnish(sandbox: Sandbox, base: Base, env: Mapping[str, str], healthcheck: Healthcheck | None) -> None:
    """Make the folders and files of a task's base, and wait until it says that it is ready. Raises RolloutError."""
    await must(sandbox, ["mkdir", "-p", *LOGS, base.workdir, *base.folders], "make the task's folders")
    for path, place in base.files:
        await sandbox.upload(path, place)
    if healthcheck is not None:
        await _become_healthy(sandbox, healthcheck, env, base.workdir)


async def make_room(sandbox: Sandbox, *paths: str) -> None:
    """Leave nothing at these places but empty folders, which may be mounted there. Raises RolloutError."""
    await must(sandbox, ["sh", "-c", EMPTY, "sh", *paths], f"make room for {' and '.join(paths)}")


async def must(sandbox: Sandbox, command: Sequence[str], what: str) -> None:
    """Run a command that is part of the set-up. Raises RolloutError where it fails, which no model is to blame for."""
    outcome = await sandbox.exec(command, timeout_s=PREPARING_S)
    if outcome.exit_code or outcome.timed_out:
        raise RolloutError(f"can't {what} in the sandbox: {said(outcome)}", "sandbox", "infrastructure")


def said(result: SandboxResult) -> str:
    """How a command ended and the last of what it said, in one line."""
    how = "it ran out of time" if result.timed_out else f"exit code {result.exit_code}"
    text = " ".join(f"{result.stdout}\n{result.stderr}".split())
    return f"{how}: {text[-MOST_SAID:]}" if text else how


async def take_out(sandbox: Sandbox, artifacts: Sequence[Artifact], folder: Path) -> dict[str, Path]:
    """Copy artifacts that are there out of a sandbox; by their place in it, where they are now."""
    taken: dict[str, Path] = {}
    for number, entry in enumerate(artifacts):
        there = await sandbox.exec(["test", "-e", entry.source], timeout_s=PREPARING_S)
        if there.exit_code == 0:
            taken[entry.source] = folder / str(number)
            await sandbox.download(entry.source, taken[entry.source])
            await asyncio.to_thread(_leave_out, taken[entry.source], entry.exclude)
    return taken


async def bring_in(sandbox: Sandbox, taken: Mapping[str, Path]) -> None:
    """Copy artifacts to where they were; what a base has there makes room for them."""
    for source, path in taken.items():
        await make_room(sandbox, source)
        await must(sandbox, ["mkdir", "-p", source if path.is_dir() else posixpath.dirname(source)], "make a folder")
        await sandbox.upload(path, source)


def _leave_out(path: Path, patterns: Sequence[str]) -> None:
    """Remove what matches, at any depth, by its name or by its path in the artifact."""
    for found in sorted(path.rglob("*"), reverse=True) if patterns else ():
        names = (found.name, found.relative_to(path).as_posix())
        if any(fnmatch.fnmatch(name, pattern.strip("/")) for name in names for pattern in patterns):
            shutil.rmtree(found) if found.is_dir() else found.unlink()


async def _become_healthy(sandbox: Sandbox, check: Healthcheck, env: Mapping[str, str], workdir: str) -> None:
    for attempt in range(check.retries):
        outcome = await sandbox.exec(check.command, timeout_s=check.timeout_sec, env=env, cwd=workdir)
        if outcome.exit_code == 0 and not outcome.timed_out:
            return
        if attempt + 1 < check.retries:
            await asyncio.sleep(check.interval_sec)
    raise RolloutError(
        f"the task's healthcheck failed {check.retries} times: {said(outcome)}", "sandbox", "environment"
    )
