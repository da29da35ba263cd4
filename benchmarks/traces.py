"""An environment from a hundred thousand recorded conversations: how long does it take, and does memory stay flat?"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.results import Limit, Section, Table

FEW, MANY = 10_000, 100_000
MOST_S = 60.0
MOST_GROWTH_MIB = 32.0
DIFFERENT = 500
"""Conversations that are made up; the others differ in their numbers."""
SECRET_EVERY = 250

CHILD = """
import sys, time
from pathlib import Path
from ludus.programs.traces import environment_from_traces
began, cpu = time.perf_counter(), time.process_time()
built = environment_from_traces([Path(sys.argv[1])], "traced-env", Path(sys.argv[2]))
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(time.perf_counter() - began, time.process_time() - cpu, peak.split()[1], sum(built.redacted.values()))
"""


def measure(quick: bool) -> Section:
    """Seconds and peak memory of a tenth, and of all."""
    section, rows, peaks = Section(), [], []
    counts = (FEW // 10, FEW) if quick else (FEW, MANY)
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            traces = Path(folder) / "traces.jsonl"
            size = _write(traces, count)
            wall, cpu, peak, secrets = _build(traces, Path(folder))
            peaks.append(peak)
            rows.append([count, size / 1e6, wall, cpu, count / wall, peak, secrets])
    if not quick:
        section.limits[f"seconds for {MANY:,} conversations"] = Limit(rows[-1][2], MOST_S)
    section.limits["MiB that ten times as many conversations add"] = Limit(peaks[1] - peaks[0], MOST_GROWTH_MIB)
    columns = ["conversations", "MB", "seconds", "CPU s", "conversations/s", "peak MiB", "secrets found"]
    section.tables.append(Table("An environment from recorded conversations", columns, rows, NOTE))
    return section


NOTE = (
    "Conversations of four replies and three tool calls, 4 kB each, every 250th with a secret; one process, from the file "
    "to the finished package. The memory that grows is a hash of each conversation and a mark of each of its messages, "
    "so that none comes twice or is the beginning of another."
)


def _build(traces: Path, folder: Path) -> tuple[float, float, float, int]:
    """Wall seconds, CPU seconds, MiB and secrets."""
    shutil.rmtree(folder / "traced-env", ignore_errors=True)
    run = subprocess.run([sys.executable, "-c", CHILD, traces, folder], capture_output=True, text=True, check=True)
    wall, cpu, peak, secrets = run.stdout.split()
    return float(wall), float(cpu), int(peak) / 1024, int(secrets)


def _write(path: Path, count: int) -> int:
    """Write conversations; returns the bytes."""
    rng = random.Random(0)
    made = [json.dumps(_talk(rng)) for _ in range(DIFFERENT)]
    with path.open("w") as file:
        for number in range(count):
            secret = f" my api key is sk-{number:016d}x" if number % SECRET_EVERY == 0 else ""
            file.write(re.sub("NUMBER", str(number), made[number % DIFFERENT]).replace("SECRET", secret) + "\n")
    return path.stat().st_size


def _talk(rng: random.Random) -> dict[str, object]:
    def words(count: int) -> str:
        return " ".join("".join(rng.choices("abdeiklmnorstu", k=rng.randint(2, 9))) for _ in range(count)) + "."

    messages: list[dict[str, object]] = [
        {"role": "system", "content": "You work for a shop. " + words(60)},
        {"role": "user", "content": "Order NUMBER: " + words(30)},
    ]
    for turn in range(3):
        function = {"name": "get_order", "arguments": json.dumps({"order": "NUMBER", "part": words(2)})}
        result = {
            "item": words(3),
            "price": rng.randint(1, 999),
            "token": None,
            "history": [words(4) for _ in range(8)],
        }
        call = {"id": f"call_{turn}", "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": json.dumps(result)},
            {"role": "assistant", "content": words(40)},
            {"role": "user", "content": words(20)},
        ]
    messages.append({"role": "assistant", "content": words(30) + "SECRET"})
    return {"messages": messages}
