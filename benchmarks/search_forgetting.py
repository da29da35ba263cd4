"""What RL in a search environment forgets of two others, which the warm-up taught beside it.

A model that starts from nothing has nothing to forget: the warm-up here is on demonstrations of three environments, and
RL goes on in one of them alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ludus import config
from ludus.programs.evaluate import evaluate_async
from ludus.programs.models import model_folder
from ludus.programs.recipe import EnvConfig, Recipe
from ludus.programs.train import train

OTHERS = (
    (EnvConfig(env="guess"), "test"),
    (EnvConfig(env="wordle", options={"letters": 3, "words": 25, "turns": 3, "rules": False}), "train"),
)
"""And the split to evaluate on: of so few words, the test split's were never hidden."""
TASKS = 1000


def forgetting(run: Path) -> Iterator[list[str]]:
    """By other environment: its name, mean reward before and after RL, and the difference with its standard error."""
    own = config.load(Recipe, run / "config.toml")
    taught = Path(own.runs) / f"{run.name}-three"
    trained = Path(own.runs) / f"{run.name}-then"
    asyncio.run(train(of_three(own, taught.name)))
    changes = {"name": trained.name, "model": str(model_folder(str(taught))), "sft": None, "overwrite": True}
    asyncio.run(train(Recipe.model_validate(own.model_dump() | changes)))
    for other, split in OTHERS:
        before, after = (evaluated(other, split, folder) for folder in (taught, trained))
        error = math.hypot(before.se, after.se)
        yield [other.label, f"{before.mean:.3f}", f"{after.mean:.3f}", f"{after.mean - before.mean:+.3f} ± {error:.3f}"]


def of_three(own: Recipe, name: str) -> Recipe:
    """A warm-up in which a recipe's environment has half, as much as it has in its own."""
    assert own.sft is not None
    searching = EnvConfig(env=own.env or "", weight=len(OTHERS), options=own.env_options)
    sft = {"steps": 2 * own.sft.steps, "num_demonstrations": 2 * own.sft.num_demonstrations}
    changes: dict[str, Any] = {
        "name": name,
        "env": None,
        "env_options": {},
        "envs": [member.model_dump() for member in (searching, *(other for other, _ in OTHERS))],
        "sft": own.sft.model_dump() | sft,
        "rl": None,
        "eval": None,
        "overwrite": True,
    }
    return Recipe.model_validate(own.model_dump() | changes)


def evaluated(other: EnvConfig, split: str, run: Path) -> Any:
    """A run's model in another environment."""
    folder = str(model_folder(str(run)))
    return asyncio.run(evaluate_async(other.env, folder, args=other.options, split=split, num_tasks=TASKS))
