"""What sandboxes may have left on this machine: processes, files, control groups.

Spares, which wait for a sandbox to be asked for, are told from the rest by having no system-call filter yet.
"""

from __future__ import annotations

import time
from pathlib import Path

from ludus.sandbox import host

PATIENCE_S = 5


def status(pid: int, key: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[1] for line in lines if line.startswith(f"{key}:")), "")


def parents() -> dict[int, int]:
    """Of every process, its parent's number; read once, for there may be hundreds."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid: int(status(pid, "PPid") or 0) for pid in pids}


def below(ancestors: set[int]) -> set[int]:
    """The children of these processes."""
    return {pid for pid, parent in parents().items() if parent in ancestors}


def groups_of(zygote: int) -> list[Path]:
    """The control groups of a zygote that are there still, its own included."""
    places = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line]
    own = {line.split(":", 2)[2].lstrip("/") for line in Path("/proc/self/cgroup").read_text().splitlines()}
    return [group for place in places for path in own for group in (place / path).glob(f"ludus-{zygote}/**/")]


def groups() -> set[str]:
    """The groups of sandboxes, each once, however many controllers count it."""
    found = [group for zygote in host._zygotes.values() for group in groups_of(zygote.process.pid)]
    return {f"{group.parent.name}/{group.name}" for group in found if group.name.startswith("box-")}


def left_behind() -> list[object]:
    zygotes = {zygote.process.pid: zygote.tier for zygote in host._zygotes.values()}
    parent_of = parents() if zygotes else {}
    first = {pid for pid, parent in parent_of.items() if parent in zygotes}
    spares = {pid for pid in first if zygotes[parent_of[pid]] == "namespaces" and status(pid, "Seccomp") == "0"}
    left: list[object] = [*first - spares, *(pid for pid, parent in parent_of.items() if parent in first)]
    return [*left, *Path("/tmp").glob("ludus-sandbox-*"), *sorted(groups())[len(spares) :]]


def left_at_last() -> list[object]:
    """What is left after a while: what tests killed themselves may take one to be cleared away."""
    until = time.monotonic() + PATIENCE_S
    while (left := left_behind()) and time.monotonic() < until:
        time.sleep(0.01)
    return left
