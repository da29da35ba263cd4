"""A sandbox on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from ludus.errors import ConfigError, SandboxFailed, SandboxFileError, SandboxUnavailable
from ludus.protocols import SandboxResult
from ludus.sandbox import transfer
from ludus.sandbox.doors import Doors, address_of, inside
from ludus.sandbox.host import zygote
from ludus.sandbox.noted import note_tier
from ludus.sandbox.spec import SandboxSpec, checked_environment
from ludus.sandbox.stream import Answer, Stream

CHUNK = 1 << 20
MOST_READ = 64 << 20
GRACE_S = 10.0
"""How much later than the time-out an answer may come before the whole sandbox is given up."""
HELD_UP_S = 1.0
"""Where the event loop is late by more than that, it is not the sandbox's code that is to blame."""


class LocalSandbox:
    """Made by `create`; `async with await LocalSandbox.create(spec) as sandbox` kills it at the end.

    Calls may run at the same time, but for those of the one Python session. A call that runs out of time ends all
    processes of the sandbox; its files stay.
    """

    def __init__(self, spec: SandboxSpec, stream: Stream, home: str) -> None:
        self.spec, self.home = spec, home
        self._stream = stream
        self._env: dict[str, str] = {}
        self._doors = Doors(stream)
        stream.first_end = self._doors.close

    @classmethod
    async def create(cls, spec: SandboxSpec | None = None) -> Self:
        """A new sandbox.

        Raises:
            SandboxUnavailable: this machine can't do the tier, or the tier not what is asked for; the text says why.
            ConfigError: a folder that would hide programs.
            SandboxFailed: it could not be started.
        """
        from ludus.sandbox.tiers import best  # which starts sandboxes itself, to see what works

        spec = spec or SandboxSpec()
        tier = await best() if spec.tier == "auto" else spec.tier
        _check_possible(spec, tier)
        stream, first = await Stream.open(zygote(tier, tuple(map(os.path.realpath, spec.packages))), spec)
        sandbox = cls(spec, stream, str(first.get("home", "")))
        try:
            sandbox._env = await sandbox._environment()
            for path, content in spec.files.items():
                await sandbox.write(path, _bytes(content))
        except BaseException:
            await sandbox.kill()
            raise
        note_tier(tier)
        return sandbox

    @property
    def tier(self) -> str:
        """How it is contained."""
        return self._stream.zygote.tier

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def exec(
        self,
        command: Sequence[str] | str,
        *,
        timeout_s: float = 60,
        stdin: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> SandboxResult:
        """Run a program, or text with /bin/sh. What it leaves running goes on until the sandbox is killed.

        Args:
            command: a program and its arguments, or the text of a shell command.
            timeout_s: after that all processes of the sandbox are killed.
            stdin: what it reads.
            env: variables beside the sandbox's own.
            cwd: folder to begin in; the sandbox's home by default.

        Raises:
            SandboxFailed: the sandbox is gone.
        """
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        if not isinstance(argv, Sequence) or not argv or not all(_is_word(word) for word in argv):
            raise ConfigError(f"exec: expected a program and its arguments as text, got {command!r:.200}")
        if cwd is not None and not _is_word(cwd):
            raise ConfigError(f"exec: expected a folder to begin in, got cwd={cwd!r:.200}")
        words = {"argv": list(argv), "env": self._env | checked_environment(env or {}), "cwd": cwd}
        return self._result(*await self._timed("exec", words, _bytes(stdin), timeout_s))

    async def run(self, code: str, *, timeout_s: float = 60, stdin: str | bytes = b"") -> SandboxResult:
        """Run Python code as a program of its own, in a fork of a warm interpreter. Raises SandboxFailed."""
        source = _bytes(code)
        words = {"source": len(source), "env": self._env, "cwd": None}
        return self._result(*await self._timed("exec", words, source + _bytes(stdin), timeout_s))

    async def python(self, code: str, *, timeout_s: float = 60) -> SandboxResult:
        """Run Python code where earlier code left its variables; the value of an expression at its end is printed.

        A time-out, `exit()` or a crash ends the session, which stderr then says; the next call begins a new one.

        Raises:
            SandboxFailed: the sandbox is gone, or its session is busy with another call.
        """
        words, data = await self._timed("python", {"env": self._env}, _bytes(code), timeout_s)
        result = self._result(words, data)
        if not words.get("over"):
            return result
        why = f"was killed after {timeout_s:g} s" if result.timed_out else f"ended with exit code {result.exit_code}"
        return msgspec.structs.replace(
            result, stderr=f"{result.stderr}[the Python session {why}; its variables are gone]\n"
        )

    async def read(self, path: str, *, max_bytes: int = MOST_READ) -> bytes:
        """A regular file, of at most so many bytes. Raises SandboxFileError."""
        content = bytearray()
        while True:
            where = {"offset": len(content), "count": min(CHUNK, max_bytes + 1 - len(content))}
            _, data = await self._file("read", path, where)
            content += data
            if len(content) > max_bytes:
                raise SandboxFileError(f"{path} is larger than the {max_bytes} bytes that may be read of it")
            if not data:
                return bytes(content)

    async def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Make or replace a file; its folders are made. Raises SandboxFileError."""
        data = _bytes(data)
        for offset in range(0, max(1, len(data)), CHUNK):
            await self._file("write", path, {"offset": offset, "mode": mode}, data[offset : offset + CHUNK])

    async def list(self, path: str = ".", *, max_files: int = 10_000) -> list[tuple[str, int]]:
        """(name, size in bytes) of the regular files below a folder; links are left out. Raises SandboxFileError."""
        words, data = await self._file("list", path, {"most": max_files})
        if words.get("kind") != "folder":
            raise SandboxFileError(f"{path} in the sandbox is no folder")
        return transfer.checked_listing(data)

    async def upload(self, host_path: str | Path, path: str) -> None:
        """Copy a file or folder of the host into the sandbox; links are left out. Raises FileProblem."""
        await transfer.upload(self, Path(host_path), path)

    async def download(self, path: str, host_path: str | Path, *, max_bytes: int = 256 << 20) -> None:
        """Copy a file, or the regular files below a folder, to a place of the host where nothing is yet.

        Raises:
            SandboxFileError: not there, more than `max_bytes`, or names that lead elsewhere.
            FileProblem: the place on the host.
        """
        words, _ = await self._file("list", path, {"most": 10_000})
        await transfer.download(self, path, Path(host_path), words.get("kind") == "folder", max_bytes)

    async def reach(self, url: str) -> str:
        """An address that works in the sandbox and leads to this address of the host's, and to nothing else there.

        Raises:
            SandboxUnavailable: the sandbox has no network at all, or the address wants TLS.
            ConfigError: it is no address.
            SandboxFailed: the sandbox is gone.
        """
        if self.tier == "none":
            return url
        parts, host, port = address_of(url)
        if self.spec.network == "none":
            raise SandboxUnavailable(
                f"reach: a sandbox with network='none' reaches nothing, not {url}; network=() does"
            )
        return inside(parts, await self._doors.to(host, port))

    async def kill(self) -> None:
        """End it: returns once no process, file, socket or control group of it is left. May be called again."""
        await self._stream.end()

    async def _timed(self, do: str, words: dict[str, Any], data: bytes, timeout_s: float) -> Answer:
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s < 1e9:
            raise ConfigError(f"timeout_s must be more than 0 seconds, got {timeout_s!r}")
        loop = asyncio.get_running_loop()
        latest = loop.time() + timeout_s + GRACE_S
        try:
            async with asyncio.timeout_at(latest):
                answer = await self._stream.call(do, {**words, "timeout_s": timeout_s}, data)
        except TimeoutError:
            held_up = loop.time() - latest  # the answer may have been waiting for this process
            await self.kill()
            raise SandboxFailed(
                f"the sandbox did not answer {GRACE_S:g} s after a time-out; it was killed",
                "policy" if held_up < HELD_UP_S else "infrastructure",
            ) from None
        if "error" in answer[0]:
            raise SandboxFailed(f"{do} in the sandbox: {answer[0]['error']}", "policy")
        return answer

    def _result(self, words: dict[str, Any], data: bytes) -> SandboxResult:
        try:
            out = int(words["out"])
            return SandboxResult(
                stdout=data[:out].decode(errors="replace"),
                stderr=data[out:].decode(errors="replace"),
                exit_code=int(words["status"]),
                timed_out=bool(words["timed_out"]),
                truncated=bool(words["truncated"]),
                oom_killed=bool(words["oom_killed"]),
                tier=self.tier,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SandboxFailed(f"the sandbox gave an answer that makes no sense: {error!r}", "policy") from None

    async def _file(self, do: str, path: str, words: dict[str, Any], data: bytes = b"") -> Answer:
        if not path or not _is_word(path):
            raise ConfigError(f"expected the path of a file in the sandbox, got {path!r:.200}")
        answer = await self._stream.call(do, {**words, "path": path}, data)
        if "error" in answer[0]:
            raise SandboxFileError(f"can't {do} {path:.200} in the sandbox: {answer[0]['error']}")
        return answer

    async def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.base_prefix).resolve()}/bin:/usr/local/bin:/usr/bin:/bin"
        temporary = "/tmp" if self.tier == "namespaces" else self.home
        variables = {"PATH": path, "HOME": self.home, "LANG": "C.UTF-8", "TMPDIR": temporary}
        if packages := self._stream.zygote.packages:
            from ludus.sandbox.inside.root import package_paths  # which no other system than Linux could import

            variables["PYTHONPATH"] = ":".join(package_paths(self.tier, packages))
        if self.tier == "namespaces" and self.spec.network != "none" and self.spec.network:
            from ludus.sandbox.proxy import Proxy  # few sandboxes have one

            port = await self._doors.open(Proxy(self.spec.network).serve)
            named = {"HTTP_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1,localhost,::1"}
            named["HTTPS_PROXY"] = named["HTTP_PROXY"]
            variables |= named | {name.lower(): value for name, value in named.items()}
        return {**variables, **self.spec.env}


def _check_possible(spec: SandboxSpec, tier: str) -> None:
    """Whether this kind of sandbox can have what the spec asks for. Raises SandboxUnavailable, ConfigError."""
    for package in spec.packages:
        if not Path(package).is_dir():
            raise ConfigError(f"packages: there is no folder {package}")
    if tier == "namespaces" and spec.folders:
        from ludus.sandbox.inside.root import unusable  # which no other system than Linux could import

        for folder in spec.folders:
            if why := unusable(folder):
                raise ConfigError(f"folders: a sandbox can't have {folder} as a writable folder: {why}")
    elif spec.folders:
        raise SandboxUnavailable(
            f"sandboxes of the tier {tier!r} have no file tree of their own, so they can't have {', '.join(spec.folders)}; "
            f"those of the tier 'namespaces' and containers can"
        )
    if tier == "landlock" and spec.network != "none":
        raise SandboxUnavailable(
            "sandboxes of the tier 'landlock' have no network of their own, so no single address can be opened to them; "
            "those of the tier 'namespaces' and containers can"
        )


def _is_word(text: object) -> bool:
    """Whether a process can be given it as an argument or a path."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode(errors="surrogateescape")  # as names of files that are no text are written
    except UnicodeEncodeError:
        return False
    return True


def _bytes(content: str | bytes) -> bytes:
    if not isinstance(content, str | bytes | bytearray | memoryview):
        raise ConfigError(f"expected text or bytes, got {type(content).__name__}")
    return content.encode(errors="surrogatepass") if isinstance(content, str) else bytes(content)
