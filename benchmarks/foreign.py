"""What a rollout of somebody else's environment costs here, and where it comes from: the same package, unmodified.

Packages of verifiers 0.3.1 (`load_environment`) and 0.4.0 (`Taskset`): five turns, four of them calls of a tool, with a
model that answers at once. CPU time of all processes of a side; the model's server is nobody's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers import python_of
from benchmarks.results import Ratio, Section, Table
from benchmarks.scheduling import V1_FEW, V1_IN_FLIGHT, v1_cost
from benchmarks.side import Side

OURS_V0, OURS_V1, OURS_IN_PROCESS = "ludus, package of 0.3.1", "ludus, package of 0.4.0", "ludus, model in process"
V0, V0_IN_PROCESS, V1 = "verifiers 0.3.1", "verifiers 0.3.1, model in process", "verifiers 0.4.0"
TURNS, IN_FLIGHT, ROLLOUTS = 5, 512, 2000
WARM_UP = 64
BARS = {V0: 5.0, V1: 100.0}


def measure(quick: bool) -> Section:
    """CPU milliseconds of a rollout, all sides in one run."""
    section, rollouts = Section(versions={"verifiers": "0.3.1 and 0.4.0"}), ROLLOUTS // 4 if quick else ROLLOUTS
    own, v0, v1 = Path(sys.executable), python_of("verifiers-0.3.1"), python_of("verifiers-0.4.0")
    ours_v0 = {"module": "instant_v0", "python": str(v0), "options": {}}
    ours_v1 = {"module": "instant_v1", "python": str(v1), "options": {"tools": True}}
    with Side("instant server", "instant.py", own, {}) as server:
        url = f"http://127.0.0.1:{server.about['port']}/v1"
        costs = {
            OURS_V0: cost(Side(OURS_V0, "ludus_foreign.py", own, {**ours_v0, "url": url}), rollouts),
            V0: cost(Side(V0, "verifiers_v0.py", v0, {"url": url}), rollouts, turns=TURNS),
            OURS_V1: cost(Side(OURS_V1, "ludus_foreign.py", own, {**ours_v1, "url": url}), rollouts),
        }
        with Side(V1, "verifiers_v1.py", v1, {"url": url}) as side:
            costs[V1] = v1_cost(side, TURNS)
    costs[OURS_IN_PROCESS] = cost(Side(OURS_IN_PROCESS, "ludus_foreign.py", own, {**ours_v0, "url": ""}), rollouts)
    costs[V0_IN_PROCESS] = cost(Side(V0_IN_PROCESS, "verifiers_v0.py", v0, {"url": ""}), rollouts, turns=TURNS)
    rows = [[name, V1_IN_FLIGHT if name == V1 else IN_FLIGHT, value] for name, value in costs.items()]
    section.tables.append(Table("CPU of a rollout of the same package", ["", "in flight", "CPU ms"], rows, NOTE))
    for name, ours in ((V0, OURS_V0), (V1, OURS_V1), (V0_IN_PROCESS, OURS_IN_PROCESS)):
        section.ratios[f"CPU of a rollout of its package, {name}"] = Ratio(costs[name] / costs[ours], BARS.get(name))
    return section


def cost(side: Side, rollouts: int, **what: int) -> float:
    """CPU milliseconds of a rollout, after some that warm it up; the side ends."""
    with side:
        side.ask(rollouts=WARM_UP, in_flight=WARM_UP, **what)
        return 1000 * side.ask(rollouts=rollouts, in_flight=IN_FLIGHT, **what).cpu_s / rollouts


NOTE = (
    f"{ROLLOUTS:,} rollouts: a question, four calls of a tool, each answered, and a reply. Model calls go over HTTP to a "
    "server that answers at once and is not counted, and once to a model in the process that plays. All processes of a "
    f"side count, its records and scores too. verifiers 0.4.0 in its normal way, with {V1_IN_FLIGHT} in flight, as each "
    f"rollout is a program of 65 MB: the cost of {V1_FEW + 4} more rollouts."
)
