"""How fast sandboxes start, what an idle one weighs, and how fast many of them end.

A start is measured from the request to the first output of code in the sandbox, its end included in the rate. A plain
`python -c "print(1)"`, which contains nothing, is measured beside it: on a busy machine only the ratio says much.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results import Limit, Ratio, Section, Table
from ludus.sandbox import LocalSandbox, SandboxSpec, host

SUSTAINED_S, QUICK_S, AT_ONCE = 30.0, 5.0, (1, 4)
LIVE, STARTING, WEIGHED = 1000, 32, 50
PER_SECOND, MEDIAN_MS, P99_MS, MIB, KILLED_S = 100.0, 10.0, 50.0, 5.0, 1.0


async def start_one() -> tuple[LocalSandbox, float]:
    """A sandbox and the seconds until its code has printed."""
    begin = time.perf_counter()
    sandbox = await LocalSandbox.create(SandboxSpec())
    result = await sandbox.run("print(1)")
    assert result.stdout == "1\n", result
    return sandbox, time.perf_counter() - begin


async def starts(seconds: float, at_once: int) -> tuple[list[float], float]:
    """Seconds of each start, and starts per second, with so many at once for so long."""
    took: list[float] = []
    begin = time.perf_counter()

    async def one_after_another() -> None:
        while time.perf_counter() - begin < seconds:
            sandbox, this = await start_one()
            took.append(this)
            await sandbox.kill()

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return took, len(took) / (time.perf_counter() - begin)


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


def processes_below(pid: int) -> list[int]:
    """Pids of all that it and its children have started."""
    return [pid, *(each for child in children(pid) for each in processes_below(child))]


def proportional_mib(pids: list[int]) -> float:
    """Mean proportional set size, in MiB."""
    sizes = [
        int(line.split()[1])
        for pid in pids
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]
    return statistics.mean(sizes) / 1024


async def many(count: int) -> tuple[float, float, int]:
    """Of so many live at once: MiB of one, seconds until all are killed, processes that are left at the end."""
    gate = asyncio.Semaphore(STARTING)

    async def create() -> LocalSandbox:
        async with gate:
            return (await start_one())[0]

    alive = await asyncio.gather(*(create() for _ in range(count)))
    zygote = host.zygote(alive[0].tier).process.pid
    weight = proportional_mib(children(zygote)[:WEIGHED])
    before = set(processes_below(zygote))
    begin = time.perf_counter()
    await asyncio.gather(*(sandbox.kill() for sandbox in alive))
    took = time.perf_counter() - begin
    await asyncio.to_thread(host.close_all)  # a few are always made in advance, and go with whoever makes them
    return weight, took, len([pid for pid in before if Path(f"/proc/{pid}").exists()])


def measure(quick: bool) -> Section:
    """Starts a second, and what a thousand at once take."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return asyncio.run(measured(QUICK_S if quick else SUSTAINED_S))


async def measured(seconds: float) -> Section:
    """The section."""
    section, rows = Section(), []
    await starts(1.0, 1)
    for at_once in AT_ONCE:
        took, rate = await starts(seconds, at_once)
        plain = await plain_starts(50, at_once)
        median_ms, p99_ms = (1000 * statistics.quantiles(took, n=100)[i] for i in (49, 98))
        rows.append([at_once, rate, median_ms, p99_ms, plain])
        section.ratios[f"starts a second, {at_once} at once, against an interpreter without a sandbox"] = Ratio(
            rate / plain
        )
    best = max(rows, key=lambda row: float(row[1]))
    section.tables.append(
        Table("Starts", ["at once", "starts/s", "median ms", "99 % within ms", "plain interpreters/s"], rows, NOTE)
    )
    weight, killed_s, left = await many(LIVE)
    section.limits = {
        "ms between starts, at best": Limit(1000 / best[1], 1000 / PER_SECOND),
        "ms until the first output, median, 1 at once": Limit(rows[0][2], MEDIAN_MS),
        "ms until the first output, 99 %, 1 at once": Limit(rows[0][3], P99_MS),
        f"MiB of an idle one, proportional, {LIVE:,} live": Limit(weight, MIB),
        f"seconds until {LIVE:,} are killed": Limit(killed_s, KILLED_S),
        "processes that are left": Limit(left, 0),
    }
    return section


NOTE = f"Each a new sandbox, for {SUSTAINED_S:g} s, one after another or four side by side, killed when it has spoken."
