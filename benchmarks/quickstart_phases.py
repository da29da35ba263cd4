"""Where the time of the quickstart goes, and what a rollout costs beside the model.

    python benchmarks/quickstart_phases.py                      # runs examples/guess.toml first
    python benchmarks/quickstart_phases.py runs/guess-0         # reads a run that is there
    python benchmarks/quickstart_phases.py --rollouts 200 --growth 1000 runs/guess-0

Phases come from what the run itself recorded. Scheduling, rendering, recording and scoring happen inside of them; they
are measured apart, as CPU time of this process with an engine that answers at once, so the fake engine's own time is in
it. Prints Markdown, for RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import ludus
from ludus.recording.backend import TokenBackend
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.store import RolloutLog, RunFolder
from ludus.testing import FakeEngine, fake_renderer
from ludus.types import MAIN_ROLE, Rollout

RECIPE = Path(__file__).parents[1] / "examples" / "guess.toml"
IN_FLIGHT, GROUP_SIZE, TURNS = 256, 8, (1, 5)


# --- the phases of a run --------------------------------------------------------------------------------------------


@dataclass
class Purpose:
    """What the rollouts made for one purpose add up to."""

    num_rollouts: int = 0
    num_turns: int = 0
    sampled: int = 0
    began: float = float("inf")
    ended: float = 0.0

    def add(self, rollout: Rollout) -> None:
        self.num_rollouts += 1
        self.num_turns += rollout.num_turns
        self.sampled += sum(sequence.num_sampled for sequence in rollout.sequences)
        self.began = min(self.began, rollout.started)
        self.ended = max(self.ended, rollout.started + rollout.seconds)

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return max(0.0, self.ended - self.began)


@dataclass
class Recorded:
    """What a pass over all rollouts of a run finds."""

    purposes: dict[str, Purpose] = field(default_factory=lambda: defaultdict(Purpose))
    rl_tokens: int = 0
    """Tokens of the sequences that RL trained on."""
    num_bytes: int = 0
    seconds: float = 0.0
    """To encode and append all rollouts again."""

    @property
    def num_rollouts(self) -> int:
        return sum(purpose.num_rollouts for purpose in self.purposes.values())


def read_rollouts(run: RunFolder) -> Recorded:
    """Count every rollout, and write it again to see what writing costs."""
    found = Recorded()
    groups: dict[str, list[tuple[float, int]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        log = RolloutLog(Path(folder) / "rollouts")
        for rollout in run.rollouts:
            found.purposes[rollout.purpose].add(rollout)
            if rollout.purpose == "train" and not rollout.excluded:
                groups[rollout.group].append((rollout.reward, sum(len(s.tokens) for s in rollout.sequences)))
            began = time.perf_counter()
            found.num_bytes += log.append(rollout).length
            found.seconds += time.perf_counter() - began
        log.close()
    for members in groups.values():
        if len({reward for reward, _ in members}) > 1:
            found.rl_tokens += sum(tokens for _, tokens in members)
    return found


def phase_rows(run: RunFolder, found: Recorded) -> Iterator[tuple[str, float, float | None]]:
    """Name, seconds and tokens of each phase, and what is left of the whole."""
    result, rows = run.read_result() or {}, run.read_metrics()

    def total(phase: str, name: str) -> float:
        return math.fsum(row[name] for row in rows if row["phase"] == phase and row.get(name) is not None)

    trained = result.get("tokens", {}).get("trained", 0)
    evaluations = [purpose for name, purpose in found.purposes.items() if name.startswith("eval")]
    phases: list[tuple[str, float, float | None]] = [
        ("demonstrations", found.purposes["demonstration"].seconds, None),
        ("SFT", total("sft", "time/training"), trained - found.rl_tokens),
        ("evaluation", sum(e.seconds for e in evaluations), sum(e.sampled for e in evaluations)),
        ("RL sampling", total("rl", "time/sampling"), total("rl", "tokens/sampled")),
        ("RL training", total("rl", "time/training"), found.rl_tokens),
    ]
    whole = result.get("seconds", 0.0)
    yield from phases
    yield "loading, saving, report", max(0.0, whole - sum(seconds for _, seconds, _ in phases)), None
    yield "whole", whole, None


def print_phases(path: Path, costs: Mapping[int, float]) -> None:
    """Both tables about a run; `costs` are CPU milliseconds of a rollout by turns."""
    with RunFolder.open(path) as run:
        found = read_rollouts(run)
        rows = list(phase_rows(run, found))
    whole = rows[-1][1] or float("nan")
    print("\n| phase | seconds | tokens/s | share |\n| --- | ---: | ---: | ---: |")
    for name, seconds, tokens in rows:
        rate = f"{tokens / seconds:,.0f}" if tokens and seconds else "–"
        print(f"| {name} | {seconds:.1f} | {rate} | {seconds / whole:.1%} |")
    count = max(1, found.num_rollouts)
    turns = sum(purpose.num_turns for purpose in found.purposes.values()) / count
    beside = interpolated(costs, turns)
    print("\nInside of these:\n\n| | per rollout | whole run | share |\n| --- | ---: | ---: | ---: |")
    print(
        f"| recording | {found.num_bytes / count:,.0f} bytes, {1000 * found.seconds / count:.3f} ms "
        f"| {found.num_bytes / 1e6:.1f} MB, {found.seconds:.1f} s | {found.seconds / whole:.1%} |"
    )
    print(
        f"| scheduling, rendering, scoring and recording, by the costs below | {beside:.2f} ms CPU "
        f"| {beside * count / 1000:.1f} s CPU | {beside * count / 1000 / whole:.1%} |"
    )
    print(f"\n{found.num_rollouts:,} rollouts of {turns:.2f} turns on average.")


def interpolated(costs: Mapping[int, float], turns: float) -> float:
    """The cost of a rollout of so many turns, on the line through the two that were measured."""
    (few, low), (many, high) = sorted(costs.items())
    return low + (high - low) * (turns - few) / (many - few)


# --- one rollout beside the model -----------------------------------------------------------------------------------


class Talk(ludus.Environment):
    """A fixed number of turns with one scorer."""

    def __init__(self, turns: int = 1) -> None:
        self.max_turns = turns

    def tasks(self, split: str) -> list[ludus.Task]:
        return [ludus.Task(prompt=f"{number} to 99", id=str(number)) for number in range(64)]

    def respond(self, ctx: ludus.Context, reply: ludus.Reply) -> str:  # type: ignore[override]
        return "higher"

    @ludus.reward
    def long(self, rollout: ludus.Rollout) -> float:
        return float(len(rollout.reply))


async def run_rollouts(turns: int, count: int, log: RolloutLog) -> None:
    """Run so many rollouts of `turns` turns with an instant engine, and record them."""
    env, backend = Talk(turns), TokenBackend("instant", FakeEngine(lambda prompt, rng: "50"), fake_renderer())
    tasks = env.tasks("train")
    visits = [(tasks[i % len(tasks)], i // len(tasks)) for i in range(-(-count // GROUP_SIZE))]
    plan = Plan(purpose="train", split="train", concurrency=IN_FLIGHT)
    async with Scheduler(env, {MAIN_ROLE: backend}, plan, on_rollout=log.append) as scheduler:
        async for group in scheduler.groups(visits, GROUP_SIZE):
            assert len(group.scored) == GROUP_SIZE


def cpu_ms(turns: int, count: int) -> float:
    """CPU milliseconds of this process for a rollout, all threads."""
    with tempfile.TemporaryDirectory() as folder:
        log = RolloutLog(Path(folder) / "rollouts")
        asyncio.run(run_rollouts(turns, min(count, IN_FLIGHT), log))  # imports, threads, caches
        began = time.process_time()
        asyncio.run(run_rollouts(turns, count, log))
        spent = time.process_time() - began
        log.close()
    return 1000 * spent / count


def growth_bytes(count: int) -> int:
    """By how many bytes the resident memory grows over so many rollouts, after as many as warm everything up."""
    with tempfile.TemporaryDirectory() as folder:
        log = RolloutLog(Path(folder) / "rollouts")
        asyncio.run(run_rollouts(1, max(GROUP_SIZE, count // 10), log))
        before = resident_bytes()
        asyncio.run(run_rollouts(1, count, log))
        grown = resident_bytes() - before
        log.close()
    return grown


def resident_bytes() -> int:
    """Resident memory now; where /proc is missing, its peak so far."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def print_rollout_costs(costs: Mapping[int, float], count: int, growth: int) -> None:
    """What was measured with the instant engine."""
    print(f"\nBeside the model, {IN_FLIGHT} rollouts in flight, {count:,} rollouts:\n")
    print("| scheduling, rendering, scoring and recording | CPU ms per rollout |\n| --- | ---: |")
    for turns, milliseconds in costs.items():
        print(f"| {turns} turn{'s' * (turns > 1)} | {milliseconds:.2f} |")
    grown = growth_bytes(growth)
    print(f"\nMemory grew by {grown / 2**20:.1f} MiB over {growth:,} rollouts ({grown / growth:,.0f} bytes each).")


# --- the whole ------------------------------------------------------------------------------------------------------


def machine() -> str:
    """What this was measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    cpu = ", ".join(sorted(names)) or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"Python {platform.python_version()}, torch {version('torch')}, ludus {ludus.__version__}"
    return f"{cpu}, {cores} cores, {platform.system()}; {versions}"


def train_quickstart(folder: str) -> Path:
    """Run the recipe of the quickstart into a folder."""
    from ludus.config import load
    from ludus.programs.recipe import Recipe
    from ludus.programs.train import train

    result = asyncio.run(train(load(Recipe, RECIPE, [f"runs={folder}"])))
    return Path(result["run"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Where the time of the quickstart goes.")
    parser.add_argument("run", nargs="?", type=Path, help="a run folder; by default the quickstart is run first")
    parser.add_argument("--rollouts", type=int, default=2_000, help="rollouts timed with an instant engine")
    parser.add_argument("--growth", type=int, default=10_000, help="rollouts over which memory is watched")
    given = parser.parse_args(arguments)
    print(machine())
    costs = {turns: cpu_ms(turns, given.rollouts) for turns in TURNS}
    if given.run is not None:
        print_phases(given.run, costs)
    else:
        with tempfile.TemporaryDirectory() as folder:
            print_phases(train_quickstart(folder), costs)
    print_rollout_costs(costs, given.rollouts, given.growth)


if __name__ == "__main__":
    main()
