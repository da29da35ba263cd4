"""What a rollout costs beside the model, against verifiers: CPU time with a model that answers at once."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.models import model_folder
from benchmarks.peers import python_of
from benchmarks.results import Limit, Ratio, Section, Table
from benchmarks.side import Side

OURS, OURS_HTTP = "ludus, in process", "ludus, over HTTP"
V0, V0_HTTP, V1 = "verifiers 0.3.1, in process", "verifiers 0.3.1, over HTTP", "verifiers 0.4.0"
IN_FLIGHT, TURNS = (256, 1024), (1, 5)
LIMITS = {1: 1.5, 5: 5.0}
"""CPU milliseconds of a rollout of ours, by its turns."""
ROLLOUTS = 1280
"""Of a round, or more where more are in flight; of five turns each, a fifth."""
MEMORY_ROLLOUTS = 10_000
MEMORY_BYTES = 500
"""By which a rollout may make the process grow: 5 MB over 10,000, whose records are some 25 MB."""
V1_IN_FLIGHT, V1_FEW = 4, 4
"""verifiers 0.4.0 starts a program of 65 MB for each rollout: 256 at once don't fit this machine."""


def measure(quick: bool) -> Section:
    """CPU milliseconds per rollout of all sides, and what 10,000 rollouts leave in memory."""
    section, rows, costs = Section(), [], dict[tuple[str, int, int], float]()
    with ExitStack() as stack:
        server = stack.enter_context(Side("instant server", "instant.py", Path(sys.executable), {}))
        sides = [stack.enter_context(side) for side in make_sides(f"http://127.0.0.1:{server.about['port']}/v1")]
        section.versions = {"verifiers": "0.3.1 and 0.4.0"}
        for turns in TURNS:
            for in_flight in IN_FLIGHT[:1] if quick else IN_FLIGHT:
                count = max(in_flight, ROLLOUTS // turns)
                for _ in range(2 if in_flight == IN_FLIGHT[0] else 1):
                    for side in sides[:-1]:
                        answer = side.ask(rollouts=count, turns=turns, in_flight=in_flight)
                        key = side.name, turns, in_flight
                        costs[key] = min(costs.get(key, float("inf")), 1000 * answer.cpu_s / count)
                print(costs, file=sys.stderr)
            if not quick:
                costs[V1, turns, V1_IN_FLIGHT] = v1_cost(sides[-1], turns)
        grown = growth_bytes(sides[0], 1000 if quick else MEMORY_ROLLOUTS)
    for (name, turns, in_flight), cost in costs.items():
        rows.append([name, turns, in_flight, cost])
    section.tables.append(Table("CPU of a rollout beside the model", ["", "turns", "in flight", "CPU ms"], rows, NOTE))
    add_ratios(section, costs)
    section.limits[f"bytes that a rollout leaves in memory, over {MEMORY_ROLLOUTS:,}"] = Limit(grown, MEMORY_BYTES)
    return section


NOTE = (
    "One turn: a question and a reply. Five turns: four calls of a tool, each answered, and a reply. Rendering, parsing, "
    "scoring and the saved record are in it; the model answers at once, over HTTP from another process that is not "
    "counted. Rounds are taken in turn, the lesser of two at 256 in flight. verifiers 0.4.0 starts a program for each "
    "rollout and has no path without; its cost is that of eight more rollouts, without what starting `vf-eval` takes."
)


def make_sides(url: str) -> Iterator[Side]:
    """Ours and theirs; verifiers 0.4.0 last."""
    own, v0 = Path(sys.executable), python_of("verifiers-0.3.1")
    yield Side(OURS, "ludus_rollouts.py", own, {"url": "", "tokenizer": str(model_folder("4x256", "float32"))})
    yield Side(OURS_HTTP, "ludus_rollouts.py", own, {"url": url})
    yield Side(V0, "verifiers_v0.py", v0, {"url": ""})
    yield Side(V0_HTTP, "verifiers_v0.py", v0, {"url": url})
    yield Side(V1, "verifiers_v1.py", python_of("verifiers-0.4.0"), {"url": url})


def v1_cost(side: Side, turns: int) -> float:
    """CPU milliseconds of a rollout under `vf-eval`."""
    side.ask(rollouts=1, turns=turns, in_flight=1)  # `uv` prepares the program once
    few, many = (side.ask(rollouts=count, turns=turns, in_flight=V1_IN_FLIGHT).cpu_s for count in (V1_FEW, V1_FEW + 8))
    return 1000 * (many - few) / 8


def growth_bytes(side: Side, count: int) -> float:
    """By how much the process grows with each rollout, after as many as warm everything up."""
    sizes = [
        side.ask(rollouts=n, turns=1, in_flight=IN_FLIGHT[0]).values["resident_bytes"] for n in (count // 10, count)
    ]
    return max(0.0, float(sizes[1] - sizes[0]) / count)


def add_ratios(section: Section, costs: dict[tuple[str, int, int], float]) -> None:
    """Peers over ours, like with like; and ours against what was promised."""
    for (name, turns, in_flight), cost in costs.items():
        what = f"{turns} turn{'s' * (turns > 1)}, {in_flight} in flight"
        if name == OURS:
            section.limits[f"CPU ms of a rollout, {what}"] = Limit(cost, LIMITS[turns])
        elif name == V1:
            ours = statistics.mean(costs[OURS, turns, n] for n in IN_FLIGHT if (OURS, turns, n) in costs)
            section.ratios[f"CPU of a rollout, {what}, {name} against ours in process"] = Ratio(cost / ours)
        elif name in (V0, V0_HTTP):
            ours = costs[OURS if name == V0 else OURS_HTTP, turns, in_flight]
            section.ratios[f"CPU of a rollout, {what}, {name}"] = Ratio(cost / ours)
