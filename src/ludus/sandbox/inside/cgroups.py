"""Control groups: the only thing that counts the memory of all processes of a sandbox together (v1 and v2).

Each zygote makes one folder beneath its own group in every hierarchy it needs, `ludus-PID`, and in it one group a
sandbox. Folders are held open, so that they can be reached after the zygote has left the host's file system.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

CONTROLLERS = ("memory", "pids")
SOCKETS_SHARE = 4
"""One part in so many of the memory may wait in sockets besides, where it is counted apart (v1)."""


@dataclass
class Hierarchy:
    """One mounted hierarchy: which of the controllers it has, and our folder in it."""

    version: int
    controllers: tuple[str, ...]
    folder: int
    """Descriptor of `ludus-PID`."""
    parent: int
    """Descriptor of the group that the zygote was started in."""


@dataclass
class Group:
    """The control groups of one sandbox."""

    name: str
    hierarchies: list[Hierarchy] = field(default_factory=list)

    def limit(self, memory_bytes: int, processes: int, network: bool) -> None:
        """Set the limits. Raises OSError."""
        for hierarchy in self.hierarchies:
            v1 = hierarchy.version == 1
            if "memory" in hierarchy.controllers:
                self._write(hierarchy, "memory.limit_in_bytes" if v1 else "memory.max", memory_bytes)
                with contextlib.suppress(OSError):  # kernels without accounting of swap have no such file
                    self._write(hierarchy, "memory.memsw.limit_in_bytes", memory_bytes) if v1 else self._write(
                        hierarchy, "memory.swap.max", 0
                    )
                if v1 and network:  # version 2 counts what waits in sockets as memory like any other
                    self._write(hierarchy, "memory.kmem.tcp.limit_in_bytes", memory_bytes // SOCKETS_SHARE)
            if "pids" in hierarchy.controllers:
                self._write(hierarchy, "pids.max", processes)

    def add(self, pid: int) -> None:
        """Move a process in. Raises OSError."""
        for hierarchy in self.hierarchies:
            self._write(hierarchy, "cgroup.procs", pid)

    def open_events(self) -> int:
        """A descriptor of the file that counts processes killed for memory, or -1."""
        for hierarchy in self.hierarchies:
            if "memory" in hierarchy.controllers:
                file = "memory.oom_control" if hierarchy.version == 1 else "memory.events"
                return os.open(f"{self.name}/{file}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=hierarchy.folder)
        return -1

    def remove(self) -> bool:
        """Take the groups away; False while the kernel still holds one."""
        for hierarchy in list(self.hierarchies):
            try:
                os.rmdir(self.name, dir_fd=hierarchy.folder)
            except FileNotFoundError:
                pass
            except OSError:
                return False
            self.hierarchies.remove(hierarchy)
        return True

    def _write(self, hierarchy: Hierarchy, file: str, value: int) -> None:
        fd = os.open(f"{self.name}/{file}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=hierarchy.folder)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)


def killed_for_memory(events: int) -> int:
    """How many processes the kernel has killed for memory, from the descriptor of `open_events`."""
    found = re.search(rb"^oom_kill (\d+)", os.pread(events, 4096, 0), re.MULTILINE) if events >= 0 else None
    return int(found[1]) if found else 0


class Groups:
    """The zygote's folder in each hierarchy that can be written to."""

    def __init__(self) -> None:
        self.name = f"ludus-{os.getpid()}"
        self.hierarchies: list[Hierarchy] = []
        for version, controllers, places in _own_groups():
            for path in places:
                with contextlib.suppress(OSError):
                    self.hierarchies.append(self._begin(version, controllers, path, path is places[0]))
                    break

    @property
    def missing(self) -> list[str]:
        """Controllers that could not be had."""
        have = {name for hierarchy in self.hierarchies for name in hierarchy.controllers}
        return [name for name in CONTROLLERS if name not in have]

    def new(self, name: str) -> Group:
        """The group of one sandbox. Raises OSError."""
        group = Group(name)
        try:
            for hierarchy in self.hierarchies:
                os.mkdir(name, dir_fd=hierarchy.folder)
                group.hierarchies.append(hierarchy)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """Take our folders away."""
        for hierarchy in self.hierarchies:
            with contextlib.suppress(OSError):
                os.rmdir(self.name, dir_fd=hierarchy.parent)

    def _begin(self, version: int, controllers: tuple[str, ...], path: Path, ours: bool) -> Hierarchy:
        _sweep(path)
        if version == 2:
            _delegate(path, controllers, ours)
        own = path / self.name
        own.mkdir(exist_ok=True)
        try:
            if version == 2:
                _delegate(own, controllers, True)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            return Hierarchy(version, controllers, os.open(own, flags), os.open(path, flags))
        except OSError:
            own.rmdir()
            raise


def _delegate(path: Path, controllers: tuple[str, ...], ours: bool) -> None:
    """Let the groups below use the controllers. Raises OSError, e.g. where processes are in the group itself."""
    control = path / "cgroup.subtree_control"
    if not set(controllers) <= set(control.read_text().split()):
        if not ours:
            raise OSError("others' groups are left as they are")
        control.write_text(" ".join(f"+{name}" for name in controllers))


def _own_groups() -> list[tuple[int, tuple[str, ...], list[Path]]]:
    """(version, controllers, folders) of each hierarchy that matters: the group that this process is in, first.

    In version 2 a group with processes can't have groups that count; then one above it may do, for who may write there.
    """
    mounted: list[tuple[str, str, set[str]]] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            mounted.append(
                (before.split()[4], before.split()[3], set(options.split(",")) if kind == "cgroup" else set())
            )
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        version = 1 if names else 2
        for place, root, words in mounted:
            if not (words & set(names.split(",")) if version == 1 else not words):
                continue
            folder = Path(place) / path.removeprefix(root if root != "/" else "").lstrip("/")
            available = set(names.split(",")) if version == 1 else _available(folder)
            controllers = tuple(name for name in CONTROLLERS if name in available)
            if controllers:
                above = [path for path in folder.parents if path.is_relative_to(place)] if version == 2 else []
                found.append((version, controllers, [folder, *above]))
            break
    return found


def _available(folder: Path) -> set[str]:
    try:
        return set((folder / "cgroup.controllers").read_text().split())
    except OSError:
        return set()


def _sweep(path: Path) -> None:
    """Remove what zygotes left that were killed themselves; the kernel refuses where anything still lives."""
    for left in path.glob("ludus-*"):
        if not Path(f"/proc/{left.name.removeprefix('ludus-')}").exists():
            for group in [*left.glob("*/"), left]:
                with contextlib.suppress(OSError):
                    group.rmdir()
