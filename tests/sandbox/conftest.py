"""Every test of this folder leaves the host as it was: no process, file or control group of a sandbox.

Spares, which wait for a sandbox to be asked for, are told from the rest by having no system-call filter yet.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ludus.sandbox import capabilities, host

PATIENCE_S = 5
HERE = Path(__file__).parent


def status(pid: int, key: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[1] for line in lines if line.startswith(f"{key}:")), "")


def below(ancestors: set[int]) -> list[int]:
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and int(status(int(name), "PPid") or 0) in ancestors
    ]


def groups() -> set[str]:
    names = [f"ludus-{zygote.process.pid}" for zygote in host._zygotes.values()]
    places = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line]
    own = {line.split(":", 2)[2].lstrip("/") for line in Path("/proc/self/cgroup").read_text().splitlines()}
    found = [group for place in places for path in own for name in names for group in (place / path / name).glob("*/")]
    return {f"{group.parent.name}/{group.name}" for group in found}


def left_behind() -> list[object]:
    first = below({zygote.process.pid for zygote in host._zygotes.values()})
    spares = [pid for pid in first if status(pid, "Seccomp") == "0"]
    left: list[object] = [*set(first) - set(spares), *below(set(first)), *Path("/tmp").glob("ludus-sandbox-*")]
    return left + sorted(groups())[len(spares) :]


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    until = time.monotonic() + PATIENCE_S
    while (left := left_behind()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left


def pytest_collection_modifyitems(items):
    ours = [item for item in items if item.path.parent == HERE and "filters" not in item.path.name]
    if ours and capabilities().tier != "namespaces":
        for item in ours:
            item.add_marker(pytest.mark.skip(reason="this machine has no namespaces for sandboxes"))
