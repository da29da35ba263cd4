"""What RL gains in a search environment, on answerable questions only, with the answer exactly right.

    python -m benchmarks.search_gain examples/email_search.toml --seeds 5     # trains, one run after the other
    python -m benchmarks.search_gain runs/email_search-0 runs/email_search-1  # reads runs that are there
    ... --judge-errs 0.1    # then RL again from each warm-up, rewarded by a judge that is wrong on a tenth of pairs
    ... --forgetting        # and what RL forgets of two other environments

Before and after RL are compared task by task on held-out tasks, sampled at temperature 1 and greedy. Two controls show
what can be had without searching: the trained model where every search finds nothing, and the answer that is commonest
among the training tasks, or "I don't know". Prints Markdown, for RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.search_controls import blind, commonest
from benchmarks.search_forgetting import forgetting
from benchmarks.search_judged import judged
from benchmarks.search_scores import scores
from ludus import config
from ludus.authoring.loading import load_environment
from ludus.programs.recipe import Recipe
from ludus.programs.statistics import Estimate, clustered_mean, paired_difference
from ludus.programs.train import train
from ludus.store import RunFolder

HEAD = (
    "run", "demonstrator", "after SFT", "after RL", "gain, 95 % interval", "greedy", "blind", "commonest", "time", "CPU",
)  # fmt: skip


def main() -> None:
    """Train where that is asked for, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", type=Path, help="a recipe, or run folders")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--judge-errs", type=float, metavar="SHARE", help="of pairs that a judge gets wrong")
    parser.add_argument("--forgetting", action="store_true")
    arguments = parser.parse_args()
    if arguments.judge_errs is not None and not 0 <= arguments.judge_errs <= 1:
        parser.error(f"--judge-errs is a share of pairs, from 0 to 1, got {arguments.judge_errs:g}")
    runs: dict[Path, str] = {}
    for path in arguments.what:
        runs |= dict(trained(path, seed) for seed in range(arguments.seeds)) if path.suffix == ".toml" else {path: "–"}
    print_gains(runs)
    if arguments.judge_errs is not None:
        print_judged(list(runs), arguments.judge_errs)
    if arguments.forgetting:
        print_forgetting(list(runs))


def print_gains(runs: Mapping[Path, str]) -> None:
    """A row for each run, by what it took."""
    print_row(HEAD)
    print_row(["---"] * len(HEAD))
    gains = []
    for run, cpu in runs.items():
        cells, gain = measure(run)
        gains.append(gain)
        print_row([run.name, *cells, cpu])
    print(f"\nGain over {len(gains)} runs: {shown(over_runs(gains))}\n")


def print_judged(runs: Sequence[Path], errs: float) -> None:
    """Each run's RL again, with a judge in the place of the rules."""
    print_row(["run", "by rules", f"by a judge that errs on {errs:.0%}", "judge less rules, 95 % interval"])
    print_row(["---"] * 4)
    differences = []
    for run in runs:
        paired = judged(run, errs)
        differences.append(paired.difference.mean)
        print_row([run.name, f"{paired.a.mean:.3f}", f"{paired.b.mean:.3f}", shown(paired.difference)])
    print(f"\nJudge less rules over {len(runs)} runs: {shown(over_runs(differences))}\n")


def print_forgetting(runs: Sequence[Path]) -> None:
    """What each run's RL does to two other environments."""
    print_row(["run", "other environment", "before RL", "after RL", "difference, standard error"])
    print_row(["---"] * 5)
    for run in runs:
        for cells in forgetting(run):
            print_row([run.name, *cells])


def trained(path: Path, seed: int) -> tuple[Path, str]:
    """The run of a recipe with another seed, and what it took of all cores."""
    recipe = config.load(Recipe, path, [f"seed={seed}"])
    recipe = config.load(Recipe, path, [f"seed={seed}", f"name={recipe.name}-{seed}", "overwrite=true"])
    began = time.process_time()
    asyncio.run(train(recipe))
    return Path(recipe.runs) / recipe.name, f"{(time.process_time() - began) / 60:.1f} min"


def measure(run: Path) -> tuple[list[str], float]:
    """The cells of one row, and the gain."""
    before, after = scores(run, "eval:after_sft"), scores(run, "eval:end")
    paired = paired_difference(before, after)
    greedy = [clustered_mean(scores(run, f"eval:{name}:greedy")).mean for name in ("after_sft", "end")]
    with RunFolder.open(run) as folder:
        result = folder.read_result() or {}
    recipe = config.load(Recipe, run / "config.toml")
    env = load_environment(recipe.env or "", recipe.env_options)
    cells = [
        f"{clustered_mean(scores(run, 'eval:demonstrator')).mean:.3f}",
        f"{paired.a.mean:.3f}",
        f"{paired.b.mean:.3f}",
        shown(paired.difference),
        f"{greedy[0]:.3f} -> {greedy[1]:.3f}",
        f"{blind(env, run, recipe):.3f}",
        f"{commonest(env):.3f}",
        f"{result.get('seconds', 0) / 60:.1f} min",
    ]
    return cells, paired.difference.mean


def over_runs(values: Sequence[float]) -> Estimate:
    """Their mean, and how far it may be off for other seeds."""
    return clustered_mean({str(number): [value] for number, value in enumerate(values)})


def shown(difference: Estimate) -> str:
    """With its 95 % interval, where there is more than one to estimate it from."""
    if difference.num_tasks < 2:
        return f"{difference.mean:+.3f}"
    low, high = difference.interval()
    return f"{difference.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def print_row(cells: Sequence[str]) -> None:
    """Of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
