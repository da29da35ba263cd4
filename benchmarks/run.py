"""Measure, side by side with others on this machine:

python -m benchmarks.run training      # one GRPO step, and the way to a reward, against TRL
python -m benchmarks.run settings      # which of TRL's settings is fastest here
python -m benchmarks.run sampling      # against vLLM and transformers
python -m benchmarks.run scheduling    # rollouts beside the model, against verifiers
python -m benchmarks.run foreign       # packages of verifiers, here and where they come from
python -m benchmarks.run mcp           # hundreds of rollouts on one MCP server
python -m benchmarks.run address       # model calls over HTTP, against those in process
python -m benchmarks.run sandbox       # how fast sandboxes start and end
python -m benchmarks.run judging       # what judges cost beside their model
python -m benchmarks.run traces        # an environment from recorded conversations
python -m benchmarks.run gpu           # where there is one
python -m benchmarks.run check         # training, sampling, scheduling in short: have ratios got worse?

Each writes its part of results.json and RESULTS.md, unless --quick. `check` writes nothing and ends with status 1 where a
ratio is lower than the committed one by more than the tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import address, foreign, gpu, judging, mcp, results, sampling, sandbox, scheduling, traces, training
from benchmarks.machine import BUSY_CORES, Load, busy_now, machine
from benchmarks.results import Section
from benchmarks.side import WORK

BENCHMARKS: dict[str, Callable[[bool], Section]] = {
    "training": training.measure,
    "settings": training.settings,
    "sampling": sampling.measure,
    "scheduling": scheduling.measure,
    "foreign": foreign.measure,
    "mcp": mcp.measure,
    "address": address.measure,
    "sandbox": sandbox.measure,
    "judging": judging.measure,
    "traces": traces.measure,
    "gpu": gpu.measure,
}
CHECKED = ("training", "sampling", "scheduling")
ALL = (*CHECKED, "sandbox", "foreign", "address", "mcp")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=[*BENCHMARKS, "check", "all"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, small models only; nothing is written")
    parser.add_argument("--busy", action="store_true", help="measure, and write it down, though others use the machine")
    given = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    if not _quiet(given.busy):
        return 2
    if given.benchmark == "check":
        return check()
    for name in ALL if given.benchmark == "all" else [given.benchmark]:
        measure(name, quick=given.quick, busy=given.busy)
    return 0


def measure(name: str, *, quick: bool, busy: bool) -> None:
    """Run a benchmark, show it, and write it down, unless others disturbed it."""
    load = Load()
    section = BENCHMARKS[name](quick)
    if not section.tables:
        return
    others = load.others()
    about = {"machine": machine(), "date": "now", "other_busy_cores": round(others, 2)}
    print("\n".join(results.markdown(name, results.plain(section) | about)))
    if quick:
        return
    if others > BUSY_CORES and not busy:
        print(f"others kept {others:.1f} cores busy meanwhile, so nothing is written: measure again", file=sys.stderr)
    else:
        results.save(name, section, machine(), others)


def check() -> int:
    """Compare ratios of short runs with the committed ones: 1 where one got worse."""
    failed = False
    for name in CHECKED:
        lines, worse = results.compare(name, BENCHMARKS[name](True))
        failed |= worse
        print("\n".join([name, *lines]))
    print(f"{'worse' if failed else 'no worse'} than committed (tolerance {results.TOLERANCE:.0%})")
    return int(failed)


def _quiet(anyway: bool) -> bool:
    busy = busy_now()
    if busy > BUSY_CORES:
        print(f"others keep {busy:.1f} cores busy", end="; ", file=sys.stderr)
        print("measuring anyway" if anyway else "wait, or measure anyway with --busy", file=sys.stderr)
    return anyway or busy <= BUSY_CORES


if __name__ == "__main__":
    sys.exit(main())
