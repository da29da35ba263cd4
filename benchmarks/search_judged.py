"""RULER in place of the rule grader: RL again from the same warm-up, rewarded by a judge that errs on some pairs.

The judge is a script behind an OpenAI-compatible address. It is told the right answer with the question, compares each
pair of attempts, and gets a known share of pairs the wrong way round; an attempt's score is its share of pairs won.
Everything else is `ludus.judging.Ruler`'s: the question, matching by id, checks, the cache. What the rules say is a
metric.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import ludus
from benchmarks.search_scores import scores
from ludus import config
from ludus.environments.search import EmailSearch
from ludus.environments.search.email_search import read_answer
from ludus.errors import UsageError
from ludus.judging import Ruler
from ludus.programs.models import CACHE
from ludus.programs.recipe import Recipe
from ludus.programs.statistics import PairedDifference, paired_difference
from ludus.programs.train import train
from ludus.serve.app import make_app
from ludus.serve.listen import Stoppable, address, listen
from ludus.testing.scripted import Scripted
from ludus.types import MAIN_ROLE, Message, Reward, Rollout, Task

REPEATS = 4
"""Questions about a group, each with errors of its own. Attempts that say the same are shown once, which leaves about
three of eight: of so few, one pair judged the wrong way round turns the whole group."""
STANDARDS = "Only the value that an attempt answers with counts. The right answer is: {answer}"
RIGHT = re.compile(r"^.* The right answer is: (.*)$", re.MULTILINE)


class JudgedEmailSearch(EmailSearch):
    """A mailbox whose agents are rewarded by how a judge compares them."""

    roles = (MAIN_ROLE, "judge")
    ruler = Ruler(repeats=REPEATS)

    @ludus.metric
    def earned(self, task: Task, rollout: Rollout) -> float:
        """What the rule grader would have paid."""
        return super().earned(task, rollout)

    @ludus.reward
    async def compared(self, group: Sequence[Rollout], models: Any) -> list[list[Reward]]:
        """The judge's score."""
        ruler = dataclasses.replace(self.ruler, standards=STANDARDS.format(answer=group[0].task.answer))
        return await ruler(group, models["judge"])


def verdict(messages: Sequence[Message], errs: float) -> str:
    """What the judge answers to a question of Ruler's."""
    question = messages[-1]["content"]
    answer = RIGHT.search(question)
    assert answer is not None  # the standards end with it
    right = {name: said(attempt) == answer[1] for name, attempt in attempts_of(question).items()}
    won = points(right, errs, Random(question))
    marks = [{"id": name, "reason": "its share of pairs", "score": score} for name, score in won.items()]
    return json.dumps({"scores": marks})


def attempts_of(question: str) -> dict[str, list[str]]:
    """What the agent said in each attempt, by id."""
    mark, _, _ = question.partition(" ")
    _, *parts = re.split(rf"^{mark} attempt with the id (\d+):\n", question, flags=re.MULTILINE)
    return {
        name: re.findall(rf"^{mark} assistant:\n(.*)$", text, re.MULTILINE)
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def said(lines: Sequence[str]) -> str:
    """The value that an attempt answers with; "" where it ends without an answer."""
    first, *words = lines[-1].split() if lines and lines[-1].split() else [""]
    return str(read_answer(words)["answer"]) if first == "Answer" and words else ""


def points(right: Mapping[str, bool], errs: float, rng: Random) -> dict[str, float]:
    """Each attempt's share of pairs won. Of pairs of which one is right, so many are judged the wrong way round; equals
    share."""
    if len(right) == 1:
        return {name: float(good) for name, good in right.items()}
    won = dict.fromkeys(right, 0.0)
    for one, other in combinations(right, 2):
        share = 0.5 if right[one] == right[other] else float(right[one] != (rng.random() < errs))
        won[one] += share
        won[other] += 1 - share
    return {name: wins / (len(right) - 1) for name, wins in won.items()}


def judged(run: Path, errs: float) -> PairedDifference:
    """Train with the judge from the warm-up of a run; how much more is right then, by the rules and task by task."""
    recipe = judged_recipe(run)
    with TemporaryDirectory() as cache:
        os.environ[CACHE] = cache
        asyncio.run(train_judged(recipe, errs))
    return paired_difference(scores(run, "eval:end"), scores(Path(recipe.runs) / recipe.name, "eval:end"))


def judged_recipe(run: Path) -> Recipe:
    """A run's RL, from where its warm-up ended."""
    rule = config.load(Recipe, run / "config.toml")
    if rule.env != EmailSearch.name or rule.sft is None:
        raise UsageError(f"{run} is no run of email-search with a warm-up, so there is nothing to judge again")
    changes = {
        "name": f"{run.name}-judged",
        "runs": str(run.parent),
        "env": f"benchmarks.search_judged:{JudgedEmailSearch.__name__}",
        "model": str(run / "export" / str(rule.sft.steps)),
        "role_models": {"judge": "cached:openai:judge"},
        "sft": None,
        "overwrite": True,
    }
    return Recipe.model_validate(rule.model_dump() | changes)


async def train_judged(recipe: Recipe, errs: float) -> None:
    """Run the recipe beside its judge."""
    with listen("127.0.0.1", 0) as bound:
        server = Stoppable(make_app(Scripted("judge", partial(verdict, errs=errs))), bound)
        serving = asyncio.create_task(server.run())
        os.environ["OPENAI_BASE_URL"] = f"{address(bound)}/v1"
        try:
            await train(recipe)
        finally:
            server.stop()
            await serving
