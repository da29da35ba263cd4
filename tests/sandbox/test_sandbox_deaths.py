"""Whoever dies without a word, host or zygote: no sandbox outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leftovers import below, groups_of
from ludus.errors import SandboxFailed
from ludus.sandbox import close_all, host, open_sandbox, run

HOST = """
import asyncio, sys
from ludus.sandbox import LocalSandbox, host
async def main():
    boxes = [await LocalSandbox.create() for _ in range(3)]
    for box in boxes:
        await box.exec("sleep 600 >/dev/null 2>&1 & setsid sleep 600 >/dev/null 2>&1 &")
    print(host.zygote("namespaces").process.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def all_below(pid: int) -> set[int]:
    found, front = set(), {pid}
    while front:
        front = below(front) - found
        found |= front
    return found


def gone(pids: set[int], within_s: float = 10) -> bool:
    until = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.slow
def test_the_host_is_killed():
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        zygote = int(process.stdout.readline())
        inside = all_below(zygote)
        assert len(inside) >= 9
        process.kill()
    assert gone({zygote, *inside})
    assert not groups_of(zygote)


@pytest.mark.slow
async def test_the_zygote_is_killed():
    async with open_sandbox() as sandbox:
        waits = asyncio.create_task(sandbox.exec("sleep 600"))
        await sandbox.exec("true")
        zygote = host.zygote(sandbox.tier).process.pid
        inside = all_below(zygote)
        os.kill(zygote, signal.SIGKILL)
        with pytest.raises(SandboxFailed) as failed:
            await waits
        assert failed.value.boundary == "sandbox"
        assert gone(inside)
    assert (await asyncio.to_thread(run, "print(1)")).stdout == "1\n"
    close_all()
    assert not groups_of(zygote)


def test_nothing_at_all_is_left_at_the_end():
    run("print(1)")
    zygotes = {zygote.process.pid for zygote in host._zygotes.values()}
    everything = {pid for zygote in zygotes for pid in all_below(zygote)} | zygotes
    close_all()
    assert gone(everything, within_s=0)
    for pid in zygotes:
        assert not groups_of(pid)


def test_a_fork_of_the_host_has_its_own():
    run("print(1)")
    zygote = host.zygote("namespaces").process.pid
    child = os.fork()
    if child == 0:
        try:
            own = run("print(2)").stdout == "2\n" and host.zygote("namespaces").process.pid != zygote
            close_all()
            os._exit(0 if own else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert run("print(3)").stdout == "3\n" and host.zygote("namespaces").process.pid == zygote


async def test_a_fork_of_the_host_leaves_the_sandboxes_of_its_parent_alone():
    async with open_sandbox() as sandbox:
        child = os.fork()
        if child == 0:
            try:
                killing = sandbox.kill()  # without an event loop: it must not need to wait for anything
                with pytest.raises(StopIteration):
                    killing.send(None)
                os._exit(0)
            finally:
                os._exit(2)
        assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
        assert (await sandbox.exec("echo there")).stdout == "there\n"
