"""`RemoteSandbox`: a computer elsewhere, with all that a sandbox can do."""

from __future__ import annotations

import asyncio
import logging
import posixpath
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Self

import msgspec

from ludus.errors import ConfigError, SandboxFailed, SandboxFileError, SandboxUnavailable
from ludus.protocols import MOST_DOWNLOADED, MOST_READ, SandboxResult
from ludus.sandbox import host_files
from ludus.sandbox.remote import archive, files, scripts
from ludus.sandbox.remote.calls import to_its_end, turn_to_start
from ludus.sandbox.remote.computer import Computer
from ludus.sandbox.remote.reach import Reach
from ludus.sandbox.spec import SandboxSpec, as_bytes, checked_environment

log = logging.getLogger(__name__)

GRACE_S = 30.0
"""How long ending processes and collecting what they said may take before the whole sandbox is given up."""
READ_BLOCKS = 32
"""Blocks of a file that one script returns: 2 MiB."""
PROGRAMS = ("__init__.py", "code.py", "session.py", "relay.py")
"""Of the package `inside`: what a Python session runs, and what `reach` does."""

_warned: set[str] = set()


class RemoteSandbox(Computer):
    """Made by `create`; `async with await KIND.create(spec) as sandbox` kills it at the end.

    Calls may run at the same time, but for those of the one Python session. A call that runs out of time ends all
    processes of the sandbox; its files stay.
    """

    def __init__(self, spec: SandboxSpec) -> None:
        super().__init__(spec)
        self._in_python = False
        self._reach: Reach | None = None

    # --- beginning and end --------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    async def check(cls) -> None:
        """Whether its client, and the engine where it needs one, is there. Raises MissingExtra, SandboxUnavailable."""

    @classmethod
    async def create(cls, spec: SandboxSpec) -> Self:
        """A new sandbox.

        Raises:
            MissingExtra: its client is not installed.
            SandboxUnavailable: there is no engine, no key, or it can't do what the spec asks for.
            SandboxFailed: it could not be started.
        """
        if cls.unlimited and cls.tier not in _warned:
            _warned.add(cls.tier)
            log.warning("sandboxes of the tier %r don't limit %s", cls.tier, cls.unlimited)
        sandbox = cls(spec)
        try:
            async with turn_to_start(cls.tier):
                await to_its_end(sandbox._start())
            await sandbox._prepare()
        except BaseException:
            await sandbox.kill()
            raise
        return sandbox

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def _prepare(self) -> None:
        words = await self.asked(files.prepare(self._folder, self.spec.folders, self.home), "prepare its folders")
        self.home = words[0]
        for path, content in self.spec.files.items():
            await self.write(path, as_bytes(content))

    # --- commands and Python ------------------------------------------------------------------------------------

    async def exec(
        self,
        command: Sequence[str] | str,
        *,
        timeout_s: float = 60,
        stdin: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> SandboxResult:
        """Run a program, or text with /bin/sh, as `Sandbox` says. Raises SandboxFailed."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        if not argv or any(not isinstance(word, str) or "\0" in word for word in argv):
            raise ConfigError(f"exec: expected a program and its arguments as text, got {command!r}")
        variables = self._environment() | checked_environment(env or {})
        folder, data = self.new_place(), as_bytes(stdin)
        place = f"{folder}/stdin" if data else "/dev/null"
        begin = await self.given(place, data) if data else ""
        script = scripts.command(folder, argv, variables, self._path(cwd or "."), place, self.spec.limits, begin)
        return self._result(await self._timed(folder, script, timeout_s))

    async def python(self, code: str, *, timeout_s: float = 60) -> SandboxResult:
        """Run Python code where earlier code left its variables, as `Sandbox` says. Raises SandboxFailed.

        The image has to have a `python3`.
        """
        if self._in_python:
            raise SandboxFailed(
                "python in the sandbox: the Python session runs other code at the moment; wait for it", "policy"
            )
        self._in_python = True
        try:
            folder = self.new_place()
            begin = await self.given(f"{folder}/code", as_bytes(code))
            script = scripts.python(
                folder, self._session, self._environment(), self.home, self.spec.limits, self.programs, begin
            )
            report = await self._timed(folder, script, timeout_s, self._session)
        finally:
            self._in_python = False
        result = self._result(report)
        if not (report.timed_out or report.how == "over"):
            return result
        why = f"was killed after {timeout_s:g} s" if result.timed_out else f"ended with exit code {result.exit_code}"
        said = f"{result.stderr}[the Python session {why}; its variables are gone]\n"
        return msgspec.structs.replace(result, stderr=said)

    async def _timed(self, folder: str, script: str, timeout_s: float, session: str = "") -> scripts.Report:
        """The report of a call. If nobody waits any longer, what it started is killed."""
        if not 0 < timeout_s < 1e9:
            raise ConfigError(f"timeout_s must be more than 0 seconds, got {timeout_s!r}")
        work = asyncio.ensure_future(self._ask(script))
        try:
            await asyncio.wait({work}, timeout=timeout_s)
        except asyncio.CancelledError:
            if self._ending is None:
                await to_its_end(self._quietly(scripts.stop(folder, session)))
            work.cancel()
            raise
        if work.done():
            report = scripts.report_of(work.result(), self.spec.limits.output_bytes)
            return report or await self._collected(folder)
        work.cancel()
        try:
            async with asyncio.timeout(GRACE_S):
                await self._end_processes()
                return msgspec.structs.replace(await self._collected(folder), timed_out=True)
        except TimeoutError:
            await self.kill()
            raise SandboxFailed(
                f"the sandbox did not answer {GRACE_S:g} s after a time-out; it was killed", "policy"
            ) from None

    async def _collected(self, folder: str) -> scripts.Report:
        """What a call said whose processes were killed."""
        answer = await self._ask(scripts.collect(folder))
        return scripts.report_of(answer, self.spec.limits.output_bytes) or scripts.KILLED

    def _result(self, report: scripts.Report) -> SandboxResult:
        return SandboxResult(
            stdout=report.stdout.decode(errors="replace"),
            stderr=report.stderr.decode(errors="replace"),
            exit_code=report.status,
            timed_out=report.timed_out,
            truncated=report.truncated,
            oom_killed=report.oom_killed,
            tier=self.tier,
        )

    # --- the host -----------------------------------------------------------------------------------------------

    async def reach(self, url: str) -> str:
        """An address that works in the sandbox and leads to this address of the host's, and to nothing else there.

        The image has to have a `python3`. Raises SandboxUnavailable, ConfigError.
        """
        if self.spec.network == "none":
            raise SandboxUnavailable("this sandbox's network is 'none'; with network=() it may reach single addresses")
        if self._reach is None:
            self._reach = Reach(self)
        return await self._reach.address(url)

    async def _end(self) -> None:
        if self._reach is not None:
            await self._reach.close()
        await super()._end()

    # --- files --------------------------------------------------------------------------------------------------

    async def read(self, path: str, *, max_bytes: int = MOST_READ) -> bytes:
        """A regular file, of at most so many bytes. Raises SandboxFileError."""
        data = await self._beginning_of(self._path(path), path, max_bytes + 1)
        if len(data) > max_bytes:
            raise SandboxFileError(f"{path} is larger than the {max_bytes} bytes that may be read of it")
        return data

    async def _beginning_of(self, place: str, path: str, most: int) -> bytes:
        """The first bytes of a file, which errors call `path`."""
        content = bytearray()
        size, count = files.READ_BLOCK, min(READ_BLOCKS, -(-most // files.READ_BLOCK))
        while True:
            script = files.read(place, len(content) // size, count)
            data = files.decoded((await self.asked(script, f"read {path}"))[1:])
            content += data
            if len(data) < size * count or len(content) >= most:
                return bytes(content[:most])

    async def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Make or replace a file; its folders are made. Raises SandboxFileError."""
        place = self.new_place()
        begin = await self.given(place, as_bytes(data))
        await self.asked(f"{begin}\n{files.install(place, self._path(path), mode)}", f"write {path}")

    async def upload(self, host_path: str | Path, path: str) -> None:
        """Copy a file or folder of the host into the sandbox; links are left out. Raises FileProblem."""
        source = host_files.checked_source(Path(host_path))
        if source.is_file():
            await self.write(path, source.read_bytes(), mode=host_files.mode_of(source))
            return
        packed = await asyncio.to_thread(archive.packed, source)
        place = self.new_place()
        begin = await self.given(place, packed)
        await self.asked(f"{begin}\n{files.unpack(place, self._path(path))}", f"write {path}")

    async def download(self, path: str, host_path: str | Path, *, max_bytes: int = MOST_DOWNLOADED) -> None:
        """Copy a file, or the regular files below a folder, to a place of the host where nothing is yet.

        Raises:
            SandboxFileError: not there, more than `max_bytes`, or names that lead elsewhere.
            FileProblem: the place on the host.
        """
        target = host_files.checked_target(Path(host_path))
        place, most = self.new_place(), max_bytes + archive.MOST_HEADS
        kind = (await self.asked(files.pack(self._path(path), place, most + 1), f"read {path}"))[0]
        if kind == "file":
            host_files.make(target, await self.read(path, max_bytes=max_bytes))
            return
        packed = await self._beginning_of(place, path, most + 1)
        await self.asked(f"rm -f {place}; echo ok", f"read {path}")
        if len(packed) > most:  # what is cut between two files looks whole
            raise SandboxFileError(f"{path} is larger than the {max_bytes} bytes that may be read of it")
        await asyncio.to_thread(archive.unpack, packed, target, path, max_bytes)

    def _path(self, path: str) -> str:
        if not path or "\0" in path:
            raise ConfigError(f"expected the path of a file in the sandbox, got {path!r}")
        return posixpath.join(self.home, path)

    @property
    def programs(self) -> dict[str, bytes]:
        """Files of the package `inside` that run in the sandbox, by path."""
        return _programs()

    @property
    def relay_folder(self) -> str:
        """Where the server is that `reach` needs."""
        return f"{self._folder}/reach"

    @property
    def _session(self) -> str:
        return f"{self._folder}/python"

    def _environment(self) -> dict[str, str]:
        return {"HOME": self.home, "LANG": "C.UTF-8", "TMPDIR": "/tmp", **self.spec.env}

    async def _quietly(self, script: str) -> None:
        try:
            async with asyncio.timeout(GRACE_S):
                await self._ask(script)
        except (SandboxFailed, TimeoutError) as error:
            log.debug("what a cancelled call started was not stopped: %s", error)


@cache
def _programs() -> dict[str, bytes]:
    folder = resources.files("ludus.sandbox.inside")
    return {f"inside/{name}": folder.joinpath(name).read_bytes() for name in PROGRAMS}
