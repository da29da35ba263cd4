"""One process that was asked for: how it starts, what it is fed, and what of its output is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from . import code, frames, linux

CHUNK = 1 << 16
PATIENCE_S = 0.5
"""For half a message: a session's code can reach its stream, and must not hold up everything."""
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
NOT_FOUND, NOT_RUN = 127, 126
"""Exit statuses of shells for a command that does not exist, or can't be run."""
FIRST_TO_GO = b"800"
"""Added to a process's share when the kernel looks for one to kill for memory, so that it is never the first one."""


@dataclass
class Launch:
    """What to start: a program, Python code as a program, or, where both are None, a Python session."""

    argv: list[str] | None
    source: str | None
    environment: dict[str, str]
    folder: str | None
    stdin: bytes


@dataclass
class Job:
    """A running process, the first of its process group."""

    pid: int
    outputs: dict[int, str]
    """Descriptors to read from: which is "out" and which is "err"."""
    most: int
    """Bytes kept of each output."""
    input: int = -1
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    channel: socket.socket | None = None
    """Where a session takes code from."""
    kept: dict[str, bytearray] = field(default_factory=lambda: {"out": bytearray(), "err": bytearray()})
    truncated: bool = False
    call: int | None = None
    """The id of the request that waits for it."""
    deadline: float | None = None
    timed_out: bool = False
    killed_before: int = 0

    def collect(self, fd: int) -> bool:
        """Keep what has been written; False at the end."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        kept = self.kept[self.outputs[fd]]
        room = self.most - len(kept)
        self.truncated |= len(data) > room
        kept += data[:room]
        return bool(data)

    def drain(self, fd: int) -> None:
        """Keep what is in the pipe now; a process left behind may go on writing to it for ever."""
        full = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        for _ in range(full // CHUNK + 1):
            with contextlib.suppress(OSError):
                self.collect(fd)

    def take(self) -> tuple[bytes, bytes, bool]:
        """Output and error output up to now, and whether some was dropped; begins anew."""
        result = bytes(self.kept["out"]), bytes(self.kept["err"]), self.truncated
        self.kept, self.truncated = {"out": bytearray(), "err": bytearray()}, False
        return result

    def feed(self) -> bool:
        """Write on to its input; False when all is written or nobody reads."""
        try:
            self.unsent = self.unsent[os.write(self.input, self.unsent[:CHUNK]) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return len(self.unsent) > 0

    def signal_group(self, number: int) -> None:
        """Signal the process and those of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def start(launch: Launch, most: int, confine: Callable[[], None]) -> Job:
    """Fork, and run it there. Raises OSError where the kernel refuses the process."""
    session = launch.argv is None and launch.source is None
    ours, theirs = socket.socketpair() if session else (None, None)
    in_read, in_write = os.pipe() if launch.stdin else (os.open("/dev/null", os.O_RDONLY), -1)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        for fd in (in_read, in_write, out_read, out_write, err_read, err_write):
            if fd >= 0:
                os.close(fd)
        raise
    if pid == 0:
        _child(launch, (in_read, out_write, err_write), theirs, confine)
    for fd in (in_read, out_write, err_write):
        os.close(fd)
    if ours is not None and theirs is not None:
        theirs.close()
        ours.settimeout(PATIENCE_S)
    for fd in (out_read, err_read, in_write):
        if fd >= 0:
            os.set_blocking(fd, False)
    return Job(pid, {out_read: "out", err_read: "err"}, most, in_write, memoryview(launch.stdin), ours)


def _child(
    launch: Launch, streams: tuple[int, int, int], channel: socket.socket | None, confine: Callable[[], None]
) -> None:
    """In the new process, and for good."""
    status = NOT_RUN
    try:
        os.setsid()
        for target, fd in enumerate(streams):
            os.dup2(fd, target)
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        with contextlib.suppress(OSError):
            os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), FIRST_TO_GO)
        linux.close_all_but({channel.fileno()} if channel else set())
        signal.set_wakeup_fd(-1)
        for number in DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        confine()
        os.environ.clear()
        os.environ.update(launch.environment)
        if launch.folder is not None:
            os.chdir(launch.folder)
        status = _run(launch, channel)
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN
        # of a program that is nowhere in the path only the last place that was looked at would be named, as bytes
        what = error.filename if isinstance(error.filename, str) else launch.argv[0] if launch.argv else "python"
        os.write(2, f"{what}: {error.strerror or error}\n".encode(errors="replace"))
    except BaseException as error:  # noqa: BLE001 - a fork of this process must never return into its loop
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _run(launch: Launch, channel: socket.socket | None) -> int:
    if launch.argv is not None:
        os.execvpe(launch.argv[0], launch.argv, launch.environment)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    code.open_streams()
    if launch.source is not None:
        return code.run_program(launch.source)
    assert channel is not None

    def receive() -> bytes | None:
        request = frames.receive(channel)
        return None if request is None else request[1]

    return code.serve_session(receive, lambda status: channel.sendall(frames.pack({"status": status})))
