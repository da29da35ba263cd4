"""Where a program runs: the few things it needs of a sandbox, and this machine itself for who asks for that by name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

OUTPUT_BYTES = 2**20
"""Of stdout and of stderr that are kept; the rest is read and dropped."""
GRACE_S = 2.0
"""That pipes are read for after their program has ended."""
MARK = "LUDUS_PROGRAM"
"""Environment variable by which everything that a program has started is found, daemons included."""


class Result(Protocol):
    """How a program ended."""

    @property
    def stdout(self) -> str: ...

    @property
    def stderr(self) -> str: ...

    @property
    def exit_code(self) -> int: ...

    @property
    def timed_out(self) -> bool: ...


class Computer(Protocol):
    """What a program needs of a sandbox."""

    async def exec(
        self,
        command: Sequence[str],
        *,
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
    ) -> Result:
        """Run a program to its end, or to the end of its time; nothing that it started is left then."""
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Write a file, and the folders that it is in."""
        ...

    async def read(self, path: str) -> bytes:
        """A file. Raises OSError."""
        ...


@dataclass(frozen=True)
class Ended:
    """How a program on this machine ended."""

    stdout: str
    stderr: str
    exit_code: int
    timed_out: bool = False


class ThisMachine:
    """No sandbox: programs run as this user, in a temporary folder, with an environment of their own.

    They can read and write whatever this user can. Use it for programs that you trust with models that you trust.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ludus-program-"))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def exec(
        self,
        command: Sequence[str],
        *,
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
    ) -> Ended:
        """See `Computer.exec`. Of this process's environment the program has what finds and runs programs.

        Raises:
            OSError: it can't be started.
        """
        mark = uuid.uuid4().hex
        passed = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._inside(cwd or "."),
            env={**passed, "HOME": str(self.folder), **(env or {}), MARK: mark},
            start_new_session=True,
        )
        pipes = _Pipes(process, stdin)
        timed_out = False
        try:
            async with asyncio.timeout(timeout_s):
                await _exit(process)
        except TimeoutError:
            timed_out = True
        finally:
            _kill(process, mark)
            await _exit(process)  # at once: it has been killed, or had ended
            await pipes.close()
        return Ended(pipes.stdout, pipes.stderr, process.returncode or 0, timed_out)

    async def write(self, path: str, data: bytes) -> None:
        """See `Computer.write`."""
        file = self._inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    async def read(self, path: str) -> bytes:
        """See `Computer.read`."""
        return self._inside(path).read_bytes()

    def _inside(self, path: str) -> Path:
        return self.folder / path  # an absolute path stays what it is: there is no sandbox


class _Pipes:
    """What goes in and out of a program, and the end of it."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: bytes | None) -> None:
        self._process, self._kept = process, (bytearray(), bytearray())
        work = [_drain(process.stdout, self._kept[0]), _drain(process.stderr, self._kept[1])]
        if stdin is not None:
            work.append(_feed(process.stdin, stdin))
        self._tasks = [asyncio.create_task(each) for each in work]

    @property
    def stdout(self) -> str:
        return self._kept[0].decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self._kept[1].decode(errors="replace")

    async def close(self) -> None:
        """Read to the end. Who gave up our mark and our group may still hold a pipe: it is not waited for."""
        _, pending = await asyncio.wait(self._tasks, timeout=GRACE_S)
        for task in pending:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._process._transport.close()  # type: ignore[attr-defined] # there is no public way


async def _drain(stream: asyncio.StreamReader | None, kept: bytearray) -> None:
    """Read all that a pipe says, and keep as much as is kept."""
    while stream is not None and (data := await stream.read(65536)):
        kept += data[: OUTPUT_BYTES - len(kept)]


async def _feed(stream: asyncio.StreamWriter | None, content: bytes | None) -> None:
    if stream is None or content is None:
        return
    with contextlib.suppress(ConnectionError):  # it need not read what it is given
        stream.write(content)
        await stream.drain()
    stream.close()


async def _exit(process: asyncio.subprocess.Process) -> None:
    """Wait for the process itself: its own `wait` also waits for whoever else holds its pipes."""
    while process.returncode is None:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.02)


def _kill(process: asyncio.subprocess.Process, mark: str) -> None:
    """End the program's process group, and what has left the group but not the machine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for _ in range(3):  # a process may just be starting another
        found = _marked(mark)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment; none where there is no /proc."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
