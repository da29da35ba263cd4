"""The machine that a figure belongs to, and whether it was quiet."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.side import own_cpu_s

BUSY_CORES = 0.15
"""Cores kept busy by others, above which nothing is measured unless asked to."""


def machine() -> dict[str, Any]:
    """Processor, cores, memory, Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    names = sorted({value for name, value in fields if name == "model name"})
    flags = next((value.split() for name, value in fields if name == "flags"), [])
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": ", ".join(names) or platform.processor(),
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "python": platform.python_version(),
    }


class Load:
    """Who else was busy: cores that other processes kept busy on average, since this was made."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.perf_counter(), _busy_s(), own_cpu_s()

    def others(self) -> float:
        """Cores."""
        seconds = max(1e-9, time.perf_counter() - self._began)
        return max(0.0, (_busy_s() - self._busy) - (own_cpu_s() - self._own)) / seconds


def busy_now(seconds: float = 2.0) -> float:
    """Cores that others keep busy at the moment."""
    load = Load()
    time.sleep(seconds)
    return load.others()


def _busy_s() -> float:
    """CPU seconds that all processes have had, from user to softirq; stolen time counts as busy."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
