"""Where the time of the quickstart goes, and what a rollout costs beside the model.

    python benchmarks/quickstart_phases.py                      # runs examples/guess.toml first
    python benchmarks/quickstart_phases.py runs/guess-0         # reads a run that is there
    python benchmarks/quickstart_phases.py --rollouts 200 --growth 1000 runs/guess-0

Phases come from what the run itself recorded. Scheduling, rendering, scoring and recording happen inside of them; they
are measured apart, as CPU time of this process with an engine that answers at once. Recording is what happens behind
the model, and the log; scheduling is what is left: the agent's loop, the threads that authors' functions run in, groups,
and most of what the clocks take themselves (a few per cent). Prints Markdown, for RESULTS.md.
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
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ludus
from ludus.recording.backend import TokenBackend
from ludus.recording.recorder import Recorder
from ludus.rollouts import attempt
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.store import RolloutLog, RunFolder
from ludus.testing import FakeEngine, fake_renderer
from ludus.types import MAIN_ROLE, Rollout

RECIPE = Path(__file__).parents[1] / "examples" / "guess.toml"
IN_FLIGHT, GROUP_SIZE, TURNS = 256, 8, (1, 5)
PARTS = ("scheduling", "rendering", "scoring", "recording", "fake engine")
Costs = Mapping[int, Mapping[str, float]]
"""CPU milliseconds of a rollout: of each of PARTS, by the number of its turns."""


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


def part_rows(found: Recorded, costs: Costs) -> Iterator[tuple[str, float, float | None]]:
    """Name, CPU seconds and sampled tokens of each part of the rollouts that a model played, by the costs measured."""
    played = [purpose for purpose in found.purposes.values() if purpose.sampled]
    tokens = sum(purpose.sampled for purpose in played)
    for part in PARTS[:-1]:
        yield part, math.fsum(interpolated(costs, part, p.num_turns, p.num_rollouts) for p in played) / 1000, tokens


def interpolated(costs: Costs, part: str, num_turns: int, num_rollouts: int) -> float:
    """CPU milliseconds of rollouts with so many turns in all, on the line through the two that were measured."""
    few, many = TURNS
    a_turn = (costs[many][part] - costs[few][part]) / (many - few)
    return num_rollouts * costs[few][part] + (num_turns - few * num_rollouts) * a_turn


def print_phases(path: Path, costs: Costs) -> None:
    """Both tables about a run."""
    with RunFolder.open(path) as run:
        found = read_rollouts(run)
        rows = list(phase_rows(run, found))
    whole = rows[-1][1] or float("nan")
    print_rows("phase", "seconds", rows, whole)
    print("\nInside of sampling and evaluation, by the costs below:")
    print_rows("part", "CPU seconds", part_rows(found, costs), whole)
    count = max(1, found.num_rollouts)
    turns = sum(purpose.num_turns for purpose in found.purposes.values()) / count
    print(
        f"\n{found.num_rollouts:,} rollouts of {turns:.2f} turns on average, demonstrations included. Their records, "
        f"written again: {found.num_bytes / count:,.0f} bytes and {1000 * found.seconds / count:.3f} ms each, "
        f"{found.num_bytes / 1e6:.1f} MB and {found.seconds:.1f} s in all."
    )


def print_rows(what: str, unit: str, rows: Iterable[tuple[str, float, float | None]], whole: float) -> None:
    """A table of names, seconds, tokens a second, and shares of the whole."""
    print(f"\n| {what} | {unit} | tokens/s | share |\n| --- | ---: | ---: | ---: |")
    for name, seconds, tokens in rows:
        rate = f"{tokens / seconds:,.0f}" if tokens and seconds else "–"
        print(f"| {name} | {seconds:.1f} | {rate} | {seconds / whole:.1%} |")


# --- one rollout beside the model -----------------------------------------------------------------------------------


class Clock:
    """Seconds by name, of code that never waits. What is timed inside of something else counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = 0.0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            outer, self._inside = self._inside, 0.0
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[name] += spent - self._inside
                self._inside = outer + spent

        return call

    def steps(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The coroutine function, timed while it runs and not while it waits; nothing here is cancelled."""

        @types.coroutine
        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            step = self.timed(name, function(*args, **kwargs).send)
            while True:
                try:
                    awaited = step(None)
                except StopIteration as ended:
                    return ended.value
                yield awaited

        return call


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


async def run_rollouts(turns: int, count: int, log: RolloutLog) -> Clock:
    """Run so many rollouts of `turns` turns with an instant engine, and record them. Returns what the parts took."""
    clock, engine, renderer = Clock(), FakeEngine(lambda prompt, rng: "50"), fake_renderer()
    for owner, name, methods in (
        (engine, "fake engine", ("_reply", "_logprobs")),
        (renderer, "rendering", ("render", "extend", "parse")),
    ):
        for method in methods:
            setattr(owner, method, clock.timed(name, getattr(owner, method)))
    env, backend = Talk(turns), TokenBackend("instant", engine, renderer)
    tasks = env.tasks("train")
    visits = [(tasks[i % len(tasks)], i // len(tasks)) for i in range(-(-count // GROUP_SIZE))]
    plan = Plan(purpose="train", split="train", concurrency=IN_FLIGHT)
    append = clock.timed("recording", log.append)
    with (
        patch.object(attempt, "score", clock.steps("scoring", attempt.score)),
        patch.object(Recorder, "call", clock.steps("recording", Recorder.call)),
    ):
        async with Scheduler(env, {MAIN_ROLE: backend}, plan, on_rollout=append) as scheduler:
            async for group in scheduler.groups(visits, GROUP_SIZE):
                assert len(group.scored) == GROUP_SIZE
    return clock


def cpu_ms(turns: int, count: int) -> dict[str, float]:
    """CPU milliseconds of a rollout, by part: scheduling is what this process spent, in all threads, on no other."""
    with tempfile.TemporaryDirectory() as folder:
        log = RolloutLog(Path(folder) / "rollouts")
        asyncio.run(run_rollouts(turns, min(count, IN_FLIGHT), log))  # imports, threads, caches
        began = time.process_time()
        spent = asyncio.run(run_rollouts(turns, count, log)).seconds
        spent["scheduling"] = time.process_time() - began - math.fsum(spent.values())
        log.close()
    return {part: 1000 * spent[part] / count for part in PARTS}


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


def print_rollout_costs(costs: Costs, count: int, growth: int) -> None:
    """What was measured with the instant engine."""
    print(f"\nBeside the model, {IN_FLIGHT} rollouts in flight, {count:,} rollouts:\n")
    print("| CPU ms per rollout | " + " | ".join(f"{turns} turn{'s' * (turns > 1)}" for turns in TURNS) + " |")
    print("| --- |" + " ---: |" * len(TURNS))
    for part in PARTS:
        print(f"| {part} | " + " | ".join(f"{costs[turns][part]:.3f}" for turns in TURNS) + " |")
    print("| whole | " + " | ".join(f"{math.fsum(costs[turns].values()):.3f}" for turns in TURNS) + " |")
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
