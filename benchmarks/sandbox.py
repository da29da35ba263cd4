"""How fast sandboxes start, what an idle one weighs, and how fast many of them end.

    python -m benchmarks.sandbox [--starts 300] [--live 1000]

A start is measured from the request to the first output of code in the sandbox, its end included in the rate. A plain
`python -c "print(1)"`, which contains nothing, is measured beside it: on a busy machine only the ratio says much.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ludus.sandbox import LocalSandbox, SandboxSpec, capabilities, host


async def start_one() -> tuple[LocalSandbox, float]:
    """A sandbox and the seconds until its code has printed."""
    begin = time.perf_counter()
    sandbox = await LocalSandbox.create(SandboxSpec())
    result = await sandbox.run("print(1)")
    assert result.stdout == "1\n", result
    return sandbox, time.perf_counter() - begin


async def starts(count: int, at_once: int) -> tuple[list[float], float]:
    """Seconds of each start, and starts per second, with so many at once."""
    left = iter(range(count))
    seconds: list[float] = []

    async def one_after_another() -> None:
        for _ in left:
            sandbox, took = await start_one()
            seconds.append(took)
            await sandbox.kill()

    begin = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return seconds, count / (time.perf_counter() - begin)


async def plain_starts(count: int, at_once: int) -> float:
    """Starts per second of an interpreter without a sandbox."""
    left = iter(range(count))

    async def one_after_another() -> None:
        for _ in left:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(1)", stdout=subprocess.DEVNULL)
            await process.wait()

    begin = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return count / (time.perf_counter() - begin)


def children(of: int) -> list[int]:
    """Pids of its children."""
    return [int(pid) for pid in Path(f"/proc/{of}/task/{of}/children").read_text().split()]


def proportional_mib(pids: list[int]) -> float:
    """Mean proportional set size, in MiB."""
    sizes = [
        int(line.split()[1])
        for pid in pids
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]
    return statistics.mean(sizes) / 1024


async def main(count: int, live: int) -> None:
    """Measure and print."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    await starts(5, 1)
    for at_once in (1, 4):
        seconds, rate = await starts(count, at_once)
        plain = await plain_starts(count // 4, at_once)
        ordered = sorted(seconds)
        print(
            f"{at_once} at once: median {statistics.median(ordered) * 1e3:.1f} ms, "
            f"99 % within {ordered[int(0.99 * (len(ordered) - 1))] * 1e3:.1f} ms, {rate:.0f} starts/s "
            f"(plain interpreter: {plain:.0f} starts/s)"
        )
    begin = time.perf_counter()
    gate = asyncio.Semaphore(32)

    async def create() -> LocalSandbox:
        async with gate:
            return (await start_one())[0]

    alive = await asyncio.gather(*(create() for _ in range(live)))
    print(f"{live} live after {time.perf_counter() - begin:.1f} s")
    zygote = host.zygote(alive[0].tier).process.pid
    pids = children(zygote)
    print(f"{proportional_mib(pids[:50]):.2f} MiB each (proportional set size, mean of 50, idle)")
    begin = time.perf_counter()
    await asyncio.gather(*(sandbox.kill() for sandbox in alive))
    print(f"all {live} killed in {time.perf_counter() - begin:.2f} s, {len(children(zygote))} processes left")


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--starts", type=int, default=300)
    words.add_argument("--live", type=int, default=1000)
    given = words.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {capabilities()}")
    asyncio.run(main(given.starts, given.live))
