"""What RL gains in a search environment, on answerable questions only, with the answer exactly right.

    python benchmarks/search_gain.py examples/email_search.toml --seeds 5     # trains, one run after the other
    python benchmarks/search_gain.py runs/email_search-0 runs/email_search-1  # reads runs that are there

Before and after RL are compared task by task on held-out tasks, sampled at temperature 1 and greedy. Two controls show
what can be had without searching: the trained model where every search finds nothing, and the answer that is commonest
among the training tasks, or "I don't know". Prints Markdown, for RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from ludus import config
from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.authoring.tasks import take
from ludus.environments.search import EmailSearch, WikiSearch
from ludus.environments.search.base import SearchEnvironment
from ludus.programs.evaluate import evaluate_async
from ludus.programs.models import model_folder
from ludus.programs.recipe import Recipe
from ludus.programs.statistics import clustered_mean, paired_difference
from ludus.programs.train import train
from ludus.store import RolloutIndex, RunFolder
from ludus.types import Rollout, Task

Scores = dict[str, list[float]]
CONTROL_TASKS = 300


class BlindEmailSearch(EmailSearch):
    """A mailbox in which nothing is ever found."""

    def setup(self, ctx: Any) -> None:
        """Open an empty mailbox."""
        self.begin(ctx, Nothing())


class BlindWikiSearch(WikiSearch):
    """An encyclopedia in which nothing is ever found."""

    def setup(self, ctx: Any) -> None:
        """Open an empty encyclopedia."""
        self.begin(ctx, Nothing())


class Nothing:
    """What finds and reads nothing."""

    def search(self, *about: Any, **filters: Any) -> list[tuple[str, str]]:
        """Nothing."""
        return []

    def read(self, *about: Any) -> None:
        """Nothing."""


BLIND: dict[type[Environment], type[SearchEnvironment]] = {EmailSearch: BlindEmailSearch, WikiSearch: BlindWikiSearch}


def main() -> None:
    """Train where that is asked for, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", type=Path, help="a recipe, or run folders")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    runs: list[Path] = []
    for path in arguments.what:
        runs += [trained(path, seed) for seed in range(arguments.seeds)] if path.suffix == ".toml" else [path]
    print("| run | demonstrator | after SFT | after RL | gain, 95 % interval | greedy | blind | commonest | time |")
    print("| --- " * 9 + "|")
    for run in runs:
        print(f"| {run.name} | {' | '.join(measure(run))} |", flush=True)


def trained(path: Path, seed: int) -> Path:
    """The run of a recipe with another seed."""
    recipe = config.load(Recipe, path, [f"seed={seed}"])
    recipe = config.load(Recipe, path, [f"seed={seed}", f"name={recipe.name}-{seed}", "overwrite=true"])
    asyncio.run(train(recipe))
    return Path(recipe.runs) / recipe.name


def measure(run: Path) -> list[str]:
    """The cells of one row."""
    before, after = scores(run, "eval:after_sft"), scores(run, "eval:end")
    paired = paired_difference(before, after)
    greedy = [clustered_mean(scores(run, f"eval:{name}:greedy")).mean for name in ("after_sft", "end")]
    with RunFolder.open(run) as folder:
        result = folder.read_result() or {}
    recipe = config.load(Recipe, run / "config.toml")
    env = load_environment(recipe.env or "", recipe.env_options)
    low, high = paired.interval
    return [
        f"{clustered_mean(scores(run, 'eval:demonstrator')).mean:.3f}",
        f"{paired.a.mean:.3f}",
        f"{paired.b.mean:.3f}",
        f"{paired.difference.mean:+.3f} [{low:+.3f}, {high:+.3f}]",
        f"{greedy[0]:.3f} -> {greedy[1]:.3f}",
        f"{blind(env, run, recipe):.3f}",
        f"{commonest(env):.3f}",
        f"{result.get('seconds', 0) / 60:.1f} min",
    ]


def scores(run: Path, purpose: str) -> Scores:
    """Whether the answer was right, by answerable task."""
    found: Scores = {}
    with RolloutIndex(run) as index:
        for row in index.query(purpose=purpose, last_attempts=True):
            rollout: Rollout = index.get(row.id)
            if not rollout.excluded and "right" in rollout.metrics:
                found.setdefault(rollout.task.id, []).append(rollout.metrics["right"])
    return found


def blind(env: Environment, run: Path, recipe: Recipe) -> float:
    """How often the trained model is right where searches find nothing."""
    nowhere = BLIND[type(env)](**env.options)
    limit = recipe.rl.max_tokens if recipe.rl else None
    result = asyncio.run(
        evaluate_async(nowhere, str(model_folder(str(run))), num_tasks=CONTROL_TASKS, max_tokens=limit)
    )
    return result.metrics["right"]


def commonest(env: Environment) -> float:
    """How often the commonest answer of training tasks is right; "I don't know" never is."""
    answers = Counter(task.answer for task in take(env, "train", 2000) if answerable(task))
    said = answers.most_common(1)[0][0]
    asked = [task for task in take(env, "test", CONTROL_TASKS) if answerable(task)]
    return sum(task.answer == said for task in asked) / len(asked)


def answerable(task: Task) -> bool:
    """Whether the question has an answer."""
    return bool(task.info.get("gold", True))


if __name__ == "__main__":
    main()
