"""Ending processes: all at once where a namespace holds them, by descent where none does."""

# System calls by their own names: these processes are forked often, and are small.
# ruff: noqa: PTH116, PTH123, PTH208
from __future__ import annotations

import contextlib
import os
import signal

PASSES = 200


def kill_all(own_pids: bool) -> None:
    """Kill every process of the sandbox but this one, its first."""
    if own_pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # the kernel visits all of this namespace in one sweep: forks don't outrun it
    else:
        kill_below(os.getpid())


def kill_below(ancestor: int) -> None:
    """Kill all that descends from a process that adopts orphans; itself lives on."""
    for _ in range(PASSES):
        below = descendants(ancestor)
        if not below:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none forks on while others die
            for pid in below:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)


def kill_strays(kept: set[int]) -> None:
    """Kill all that descends from this process, which adopts orphans, but these and what descends from them."""
    for _ in range(PASSES):
        everybody = set(descendants(os.getpid()))  # first: what is forked meanwhile is then no stray
        strays = everybody - kept - {pid for first in kept for pid in descendants(first)}
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def descendants(ancestor: int) -> list[int]:
    """All living processes below one, zombies left out."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                words = file.read().rpartition(b")")[2].split()
                if words[0] not in (b"Z", b"X"):
                    parents[int(name)] = int(words[1])
    found, front = [], {ancestor}
    while front:
        front = {pid for pid, parent in parents.items() if parent in front}
        found += sorted(front)
    return found


def resident_bytes(own_pids: bool) -> int:
    """Private memory of all processes of the sandbox but this one, in bytes."""
    me = os.getpid()
    everybody = [int(name) for name in os.listdir("/proc") if name.isdigit()] if own_pids else descendants(me)
    pages = 0
    for pid in everybody:
        if pid != me:
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/statm", "rb") as file:
                words = file.read().split()
                pages += int(words[1]) - int(words[2])
    return pages * os.sysconf("SC_PAGE_SIZE")


def num_tasks(uid: int) -> int:
    """Processes and threads of a user."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{name}/task")) if os.stat(f"/proc/{name}").st_uid == uid else 0
    return count
