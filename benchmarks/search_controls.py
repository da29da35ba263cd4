"""What can be had in a search environment without searching: two controls."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.environments.search import EmailSearch, WikiSearch
from ludus.environments.search.base import SearchEnvironment
from ludus.programs.evaluate import evaluate_async
from ludus.programs.models import model_folder
from ludus.programs.recipe import Recipe
from ludus.types import Task

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
