"""A judge trained on labels, then a task trained through nothing but that judge: what each of the two gains.

    python benchmarks/judge_gain.py --seeds 5                       # trains both recipes, one run after the other
    python benchmarks/judge_gain.py runs/notes_judge-0 runs/notes-0   # reads runs that are there

The judge is compared with its warm-up on held-out labels, some of which are wrong, and on what they would be otherwise. The
task is compared with its warm-up by a measure that no judge has seen (`met`), and by what the judge itself says. Sampled at
temperature 1, and greedy, as a judge serves; task by task, with 95 % intervals. Prints Markdown, for RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ludus import config
from ludus.environments.notes import JUDGE
from ludus.programs.recipe import Recipe
from ludus.programs.signs import correlation
from ludus.programs.statistics import clustered_mean, paired_difference
from ludus.programs.train import train
from ludus.store import RolloutIndex
from ludus.types import Rollout

EXAMPLES = Path(__file__).parents[1] / "examples"
SCORERS = {"notes_judge": ("agrees", "right"), "notes": ("met", "pleases")}
"""Of each recipe: what the gain is measured by first, and then."""
WARM_UP, END = "eval:after_sft", "eval:end"


@dataclass(frozen=True)
class Run:
    """A finished run; times where it was trained just now."""

    path: Path
    cpu_s: float | None = None
    wall_s: float | None = None

    @property
    def scorers(self) -> tuple[str, str]:
        """The scorers that its gain is measured by."""
        env = config.load(Recipe, self.path / "config.toml").title
        return SCORERS["notes_judge" if "judge" in env else "notes"]


def main() -> None:
    """Train where no runs are named, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders to read")
    parser.add_argument("--seeds", type=int, default=1, help="how many pairs to train")
    parser.add_argument("--into", default="runs", help="folder of the runs that are trained")
    arguments = parser.parse_args()
    runs = map(Run, arguments.runs) if arguments.runs else trained(arguments.seeds, arguments.into)
    print("| run | scorer | sampling | after SFT | after RL | gain, 95 % interval | CPU s | wall s |")
    print("| --- " * 8 + "|")
    gains: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for scorer in run.scorers:
            for sampling in ("", ":greedy"):
                row, gain = measure(run, scorer, sampling)
                gains.setdefault((scorer, sampling), []).append(gain)
                print(f"| {' | '.join(row)} |", flush=True)
        if "met" in run.scorers:
            print(f"| {run.path.name} | correlation of reward and measure | | {' | '.join(faithful(run))} | | | |")
    for (scorer, sampling), values in gains.items():
        if len(values) > 1:
            print(f"\n{scorer}{sampling}, {len(values)} seeds: {spread(values)}")


def trained(seeds: int, runs: str) -> Iterator[Run]:
    """Each judge, and then the task that it rewards."""
    for seed in range(seeds):
        judge = f"notes_judge-{seed}"
        yield train_one("notes_judge", [f"seed={seed}", f"name={judge}"], runs)
        yield train_one("notes", [f"seed={seed}", f"name=notes-{seed}", f"role_models.{JUDGE}={runs}/{judge}"], runs)


def train_one(example: str, changes: Sequence[str], runs: str) -> Run:
    """An example, changed and trained."""
    recipe = config.load(Recipe, EXAMPLES / f"{example}.toml", [*changes, f"runs={runs}", "overwrite=true"])
    cpu, wall = time.process_time(), time.perf_counter()
    asyncio.run(train(recipe))
    return Run(Path(runs) / recipe.name, time.process_time() - cpu, time.perf_counter() - wall)


def measure(run: Run, scorer: str, sampling: str) -> tuple[list[str], float]:
    """The cells of one row, and the gain."""
    paired = paired_difference(*(scores(run.path, purpose + sampling, scorer) for purpose in (WARM_UP, END)))
    low, high = paired.interval
    times = ["–" if seconds is None else f"{seconds:.0f}" for seconds in (run.cpu_s, run.wall_s)]
    gain = f"{paired.difference.mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    how = "greedy" if sampling else "temperature 1"
    row = [run.path.name, scorer, how, f"{paired.a.mean:.3f}", f"{paired.b.mean:.3f}", gain, *times]
    return row, paired.difference.mean


def faithful(run: Run) -> list[str]:
    """How far the judge's rewards go with the measure that it never saw, before and after."""
    pairs = [(scores(run.path, purpose, "pleases"), scores(run.path, purpose, "met")) for purpose in (WARM_UP, END)]
    found = [correlation([v for t in a for v in a[t]], [v for t in a for v in b[t]]) for a, b in pairs]
    return ["–" if math.isnan(value) else f"{value:.3f}" for value in found]  # where one of them never varies


def scores(run: Path, purpose: str, scorer: str) -> dict[str, list[float]]:
    """What a scorer said, by task."""
    found: dict[str, list[float]] = {}
    with RolloutIndex(run) as index:
        for row in index.query(purpose=purpose, last_attempts=True):
            rollout: Rollout = index.get(row.id)
            if not rollout.excluded:
                found.setdefault(rollout.task.id, []).append(rollout.metrics[scorer])
    return found


def spread(gains: Sequence[float]) -> str:
    """Mean over seeds with a 95 % interval."""
    mean = clustered_mean({str(seed): [gain] for seed, gain in enumerate(gains)})
    low, high = mean.interval()
    return f"{mean.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
