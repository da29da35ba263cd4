"""What judges cost beside the model: processor time of a call with a judge that answers at once, and of a cache hit.

The same rollouts are run with and without a judge; the difference, over the calls that were made, is what a judge costs.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ludus
from benchmarks.results import Limit, Section, Table
from ludus.judging import Criterion, Rubric, Ruler
from ludus.recording.cached import Cached
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Reply, Sampling, Task

GROUPS, QUICK_GROUPS, ROUNDS, SIZE = 200, 40, 5, 8
HITS, QUICK_HITS = 20_000, 2_000
MOST_MS, MOST_HIT_US = 1.0, 50.0
WORDS = "This is what a reply of some length looks like, with words that say nothing. " * 6


class Instant:
    """A model that answers at once, a policy or a judge."""

    name = "instant"

    def __init__(self, say: Any) -> None:
        self._say = say

    async def complete(self, messages: Any, tools: Any, sampling: Sampling) -> Reply:
        """The next reply."""
        return Reply({"role": "assistant", "content": self._say(messages)})


class Plain(ludus.Environment):
    """One reply, worth nothing in particular."""

    roles = (MAIN_ROLE, "judge")

    def tasks(self, split: str) -> list[Task]:
        """As many as are wanted."""
        return [Task(prompt=f"Write something about {number}.", id=str(number)) for number in range(GROUPS)]

    @ludus.reward
    async def fine(self, rollout: Any) -> float:
        """The same for all."""
        return 0.5


class Checked(Plain):
    """A judge checks one criterion."""

    rubric = Rubric((Criterion("good", "It is good."),))

    @ludus.reward
    async def fine(self, rollout: Any, models: Any) -> Any:  # type: ignore[override]
        """As the judge says."""
        return await self.rubric(rollout, models["judge"])


class Compared(Plain):
    """A judge compares the group."""

    ruler = Ruler()

    @ludus.reward
    async def best(self, group: Any, models: Any) -> Any:
        """As the judge says."""
        return await self.ruler(group, models["judge"])


def verdict(messages: Any) -> str:
    """One that fits either question."""
    number = messages[1]["content"].count("attempt with the id ")
    return json.dumps({"mark": 1, "scores": [{"id": str(n), "score": 0.5, "reason": ""} for n in range(1, number + 1)]})


async def cpu_of(env: ludus.Environment, groups: int) -> tuple[float, float, int]:
    """Seconds of processor time and of the clock, and calls of the judge, for so many groups."""
    policy = Instant(lambda messages: f"{WORDS}{hash(messages[-1]['content'])} {time.perf_counter_ns()}")
    todo = [(task, 0) for task in list(env.tasks("test"))[:groups]]
    calls = 0
    cpu, clock = time.process_time(), time.perf_counter()
    async with Scheduler(env, {MAIN_ROLE: policy, "judge": Instant(verdict)}, Plan(max_retries=0)) as scheduler:
        async for group in scheduler.groups(todo, SIZE):
            assert len(group.scored) == SIZE, group.rollouts[0].failure
            calls += sum(call.role == "judge" for r in group.rollouts for call in (*r.calls, *r.group_calls))
    return time.process_time() - cpu, time.perf_counter() - clock, calls


async def hit_us(folder: Path, hits: int) -> float:
    """Median microseconds of a cache hit, for a question of usual length."""
    cached = Cached(Instant(verdict), folder)
    asked = [[{"role": "system", "content": WORDS}, {"role": "user", "content": f"{WORDS * 5}{n}"}] for n in range(100)]
    cold, took = Sampling(temperature=0.0, seed=1), []
    for messages in asked:
        await cached.complete(messages, [], cold)
    for number in range(hits):
        begin = time.perf_counter()
        await cached.complete(asked[number % 100], [], cold)
        took.append(time.perf_counter() - begin)
    assert cached.num_hits == hits
    cached.close()
    return 1e6 * statistics.median(took)


def measure(quick: bool) -> Section:
    """Processor time of a judge's calls, and how long cache hits take."""
    groups = QUICK_GROUPS if quick else GROUPS
    took: dict[str, list[tuple[float, float, int]]] = {}
    for number in range(1 if quick else ROUNDS):
        for env in (Plain(), Checked(), Compared()):
            figures = asyncio.run(cpu_of(env, groups))
            if number or quick:
                took.setdefault(type(env).__name__, []).append(figures)
    plain = statistics.median(cpu for cpu, _, _ in took["Plain"])
    rows, section = [], Section()
    for name, what in (("Checked", "a criterion of a rubric"), ("Compared", f"a comparison of {SIZE} rollouts")):
        cpu, clock, calls = (statistics.median(column) for column in zip(*took[name], strict=True))
        cost_ms = 1000 * (cpu - plain) / calls
        rows.append([what, int(calls), cost_ms, groups / clock])
        section.limits[f"ms of processor time of {what}"] = Limit(cost_ms, MOST_MS)
    with TemporaryDirectory() as folder:
        section.limits["µs of a cache hit, median"] = Limit(
            asyncio.run(hit_us(Path(folder), QUICK_HITS if quick else HITS)), MOST_HIT_US
        )
    section.tables.append(
        Table(
            "Judges that answer at once", ["a call is", "calls", "ms of processor time a call", "groups/s"], rows, NOTE
        )
    )
    return section


NOTE = f"{GROUPS} groups of {SIZE} rollouts, with a judge and without; what it costs is the difference, over its calls."
