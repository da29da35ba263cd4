"""Every test of this folder leaves the host as it was: no process, file or control group of a sandbox."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ludus.errors import SandboxUnavailable
from ludus.sandbox import capabilities, host

PATIENCE_S = 5


def children_of_zygotes() -> list[int]:
    zygotes = {zygote.process.pid for zygote in host._zygotes.values()}
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent in zygotes:
                found.append(int(name))
    return found


def groups() -> list[Path]:
    names = [f"ludus-{zygote.process.pid}" for zygote in host._zygotes.values()]
    places = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line]
    own = {line.split(":", 2)[2].lstrip("/") for line in Path("/proc/self/cgroup").read_text().splitlines()}
    return [group for place in places for path in own for name in names for group in (place / path / name).glob("*/")]


def left_behind() -> list[object]:
    return [*children_of_zygotes(), *groups(), *Path("/tmp").glob("ludus-sandbox-*")]


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    until = time.monotonic() + PATIENCE_S
    while left_behind() and time.monotonic() < until:
        time.sleep(0.01)
    assert not left_behind()


def pytest_collection_modifyitems(items):
    try:
        best = capabilities().tier
    except SandboxUnavailable:
        best = None
    for item in items:
        if "sandbox" in str(item.path.parent.name) and best != "namespaces":
            item.add_marker(pytest.mark.skip(reason="this machine has no namespaces for sandboxes"))
