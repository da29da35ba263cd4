"""How a new process gives up what it could do: the steps of each tier, in the order in which they must happen."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

from . import filters, landlock, linux, root
from .processes import kill_below, num_tasks

NAMESPACES = (
    linux.CLONE_NEWUSER
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNS
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)


def prepare(tier: str, folder: str, uid: int | None) -> None:
    """What can be done before a sandbox's limits are known.

    Args:
        tier: "namespaces", "landlock" or "none".
        folder: the sandbox's files where it has no file tree of its own.
        uid: a user id of the host that only this sandbox has, where one can be had.

    Raises:
        OSError: the kernel refuses a step.
    """
    if tier == "namespaces":
        become(root.INSIDE_ID)
        root.complete()
        socket.sethostname("sandbox")
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        os.chdir(folder)
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        if tier == "landlock" and uid is not None:
            become(uid)
            if not os.access(os.__file__, os.R_OK):
                raise OSError(
                    f"users other than root can't read the Python in {sys.base_prefix}; install one that they can"
                )
        signal.signal(signal.SIGTERM, _end_with_all)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)


def lock(tier: str, wanted: dict[str, Any], counted: bool, folder: str) -> tuple[str, Callable[[], None]]:
    """Give up everything else, for good.

    Args:
        tier: as in `prepare`.
        wanted: `limits`, the fields of `Limits`; `folders` that are to be writable; whether there is a `network`;
            `packages`, folders of the host that may be read.
        counted: whether control groups count memory and processes; otherwise each process has the limit of memory.
        folder: as in `prepare`.

    Returns:
        The folder that code begins in, and what each process does before it runs code.

    Raises:
        OSError: the kernel refuses a step.
    """
    limits, network = wanted["limits"], wanted["network"]
    others = 0 if tier == "namespaces" else num_tasks(os.getuid()) - 1
    if tier == "landlock":
        return folder, lambda: _lock_by_path(folder, wanted, counted, others)
    if tier == "none":
        return folder, lambda: set_limits(limits, counted, others)
    root.finish(limits["disk_bytes"], limits["inodes"], wanted["folders"])
    if network:
        linux.loopback_up()
    set_limits(limits, counted)
    linux.drop_capabilities()
    linux.install_filter(_filter(counted, True, network))
    return root.HOME, _nothing


def warm_up() -> None:
    """Do once, before anything is forked, what would be the same each time."""
    for counted, network in product((True, False), repeat=2):
        _filter(counted, True, network)


@cache
def _filter(counted: bool, unix_sockets: bool, internet: bool) -> bytes:
    return filters.program(linux.MACHINE, counted, unix_sockets, internet)


def become(uid: int) -> None:
    """Take a user id with a group of the same number and no others. Raises OSError."""
    try:
        os.setgroups([])
    except PermissionError:  # denied where one ordinary user made the namespace; the groups mean nothing inside
        if os.getuid() == 0:
            raise
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def set_limits(limits: dict[str, Any], counted: bool, others: int = 0) -> None:
    """Limits of each process; the number of processes is the user's, of whom `others` are not of the sandbox."""
    wanted = {
        resource.RLIMIT_CORE: 1,  # 0 would still start a host's program for core dumps, where it has one; 1 does not
        resource.RLIMIT_NPROC: limits["processes"] + 1 + others,
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_MEMLOCK: 1 << 16,
    }
    if not counted:
        wanted[resource.RLIMIT_AS] = limits["memory_bytes"]
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, most))


def _lock_by_path(folder: str, wanted: dict[str, Any], counted: bool, others: int) -> None:
    set_limits(wanted["limits"], counted, others)
    linux.drop_capabilities()
    readable = [*root.read_only_paths(), *wanted["packages"], "/proc/self"]
    landlock.restrict(readable, [folder], [f"/dev/{name}" for name in root.DEVICES])
    linux.install_filter(_filter(counted, False, False))


def _end_with_all(*_: object) -> None:
    """The zygote died: nobody else would end what runs below this process."""
    kill_below(os.getpid())
    os._exit(1)


def _nothing() -> None:
    """The first process is confined already, and all others with it."""
