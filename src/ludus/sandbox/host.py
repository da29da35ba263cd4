"""The zygotes of this process, one for each tier and what it shows of packages: started when first needed, gone with this
process however it ends."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ludus.errors import SandboxUnavailable
from ludus.sandbox.spec import SandboxSpec

START = """
import sys
sys.path.append({folder!r})
from inside.zygote import main
sys.path.pop()
main({control}, {tier!r}, {host}, {packages!r})
"""
FULL = (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS)
"""Many things are asked for at once: the kernel holds a few hundred packets."""
FULL_WAIT_S = 0.002
MOST_DISMISSED = 4000


class Zygote:
    """A process that sandboxes of one tier are forked from.

    Args:
        tier: of this machine.
        packages: folders with Python packages that its sandboxes can read.

    Raises:
        SandboxUnavailable: it can't be started here.
    """

    def __init__(self, tier: str, packages: tuple[str, ...] = ()) -> None:
        self.tier, self.packages = tier, packages
        if sys.platform != "linux":
            raise SandboxUnavailable(f"sandboxes need Linux; this is {sys.platform}")
        self._numbers = itertools.count()
        self._dismissed: deque[int] = deque()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.process = self._start(theirs)
        except OSError as error:
            self.control.close()
            raise SandboxUnavailable(f"no Python could be started for sandboxes: {error}") from error
        finally:
            theirs.close()
        self.control.setblocking(False)

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        # the interpreter beneath a virtual environment; nothing of this process but one socket goes along
        python = getattr(sys, "_base_executable", None) or sys.executable
        folder, control = str(Path(__file__).parent), theirs.fileno()
        process = subprocess.Popen(
            [python, "-I", "-S", "-X", "utf8", "-"],
            env={},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[control],
            start_new_session=True,
        )
        assert process.stdin is not None
        # not as an argument: sandboxes can read those of their first process
        with contextlib.suppress(BrokenPipeError), process.stdin as source:
            shown = {"tier": self.tier, "packages": list(self.packages)}
            source.write(START.format(folder=folder, control=control, host=os.getpid(), **shown).encode())
        return process

    @property
    def alive(self) -> bool:
        """Whether it still takes requests."""
        return self.process.poll() is None

    async def ask(self, spec: SandboxSpec, theirs: Sequence[socket.socket]) -> int:
        """Request a sandbox at the other end of a stream, and of a second one where it has a network.

        Returns:
            Its number, for `dismiss`.

        Raises:
            OSError: the zygote is gone.
        """
        number = next(self._numbers)
        wanted = {"limits": spec.limits, "folders": spec.folders, "network": spec.network != "none", "number": number}
        wanted["packages"] = self.packages
        packet = msgspec.json.encode(wanted)
        while True:
            try:
                socket.send_fds(self.control, [packet], [end.fileno() for end in theirs])
                return number
            except OSError as error:
                if error.errno not in FULL:
                    raise
            await asyncio.sleep(FULL_WAIT_S)

    def dismiss(self, number: int) -> None:
        """Have a sandbox killed: in one go with all that are dismissed in this turn of the event loop.

        Its end could be seen by its stream as well, but then its first process would wake up to see it, which takes
        longer than to kill it.
        """
        self._dismissed.append(number)
        asyncio.get_running_loop().call_soon(self._send_dismissed)

    def _send_dismissed(self) -> None:
        numbers: list[int] = []
        with contextlib.suppress(IndexError):
            while len(numbers) < MOST_DISMISSED:
                numbers.append(self._dismissed.popleft())
        if not numbers:
            return
        try:
            self.control.send(msgspec.json.encode({"kill": numbers}))
        except OSError as error:
            if error.errno in FULL:
                self._dismissed.extend(numbers)
                asyncio.get_running_loop().call_later(FULL_WAIT_S, self._send_dismissed)
            # else it is gone, and all its sandboxes with it

    def close(self) -> None:
        """End it and all its sandboxes; waits until nothing is left."""
        self.control.close()
        self.process.wait()


_zygotes: dict[tuple[str, tuple[str, ...]], Zygote] = {}
_lock = threading.Lock()


def zygote(tier: str, packages: tuple[str, ...] = ()) -> Zygote:
    """The living zygote of a tier with these packages, started now if there is none. Raises SandboxUnavailable."""
    with _lock:
        found = _zygotes.get((tier, packages))
        if found is None or not found.alive:
            if found is not None:
                found.close()
            found = _zygotes[tier, packages] = Zygote(tier, packages)
        return found


def close_all() -> None:
    """End all sandboxes of this process and what they are made by; the next one starts afresh."""
    with _lock:
        while _zygotes:
            _zygotes.popitem()[1].close()


def _forget_in_fork() -> None:
    """The parent's zygotes are the parent's: its sockets must end with it, not with this process."""
    global _lock
    _lock = threading.Lock()
    for inherited in _zygotes.values():
        inherited.control.close()
        inherited.process.returncode = 0  # not this process's child
    _zygotes.clear()


atexit.register(close_all)
os.register_at_fork(after_in_child=_forget_in_fork)
