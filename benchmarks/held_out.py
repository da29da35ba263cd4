"""One judge for all sides: the mean reward of a model folder on tasks that nobody trains on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.side import ROOT, WORK
from ludus.authoring.loading import load_environment
from ludus.authoring.tasks import take
from ludus.programs.evaluate import preferred_sampling, run_evaluation
from ludus.programs.models import open_folder
from ludus.programs.schedule import Shuffled
from ludus.rollouts.scheduler import Plan
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Task


class HeldOut:
    """The held-out tasks of an environment.

    Args:
        name: of the environment.
    """

    TASKS = 500

    def __init__(self, name: str) -> None:
        self.name = name
        self._env = load_environment(name, {})
        self._tasks = take(self._env, "test", self.TASKS)

    def reward(self, folder: Path) -> float:
        """Mean over the tasks, one sampled reply of at most 16 tokens each."""
        opened = open_folder(folder, "judged")
        plan = Plan(sampling=preferred_sampling(self._env, {"max_tokens": 16}), concurrency=256)
        try:
            result = asyncio.run(run_evaluation(self._env, {MAIN_ROLE: opened.backend}, plan, tasks=self._tasks))
        finally:
            opened.close()
        return float(result.mean)

    def training_tasks(self, count: int, seed: int) -> list[Task]:
        """Tasks to train on, shuffled as our own RL does."""
        stream = Shuffled(take(self._env, "train", count), derive(seed, "rl"))
        return [stream.at(i)[0] for i in range(count)]


def warmed_up(seed: int) -> Path:
    """The model that examples/spell_backward.toml has after its SFT, made once."""
    folder = WORK / "models" / f"spell-backward-sft-{seed}"
    if not folder.exists():
        from ludus.config import load
        from ludus.programs.recipe import Recipe
        from ludus.programs.train import train

        runs = WORK / "runs"
        without = [f"seed={seed}", f"runs={runs}", f"name=sft-{seed}", "overwrite=true", "rl.steps=0"]
        asyncio.run(train(load(Recipe, ROOT / "examples" / "spell_backward.toml", without)))
        newest = max((runs / f"sft-{seed}" / "export").iterdir(), key=lambda path: int(path.name))
        folder.parent.mkdir(parents=True, exist_ok=True)
        newest.rename(folder)
    return folder
