"""Ask somebody for two things, as it pleases those who read the note: a task that only a judge can reward.

No prompt says what pleases. A judge, another model, says whether a note does; the environment itself knows as well, since
its notes are made of few words, but tells nobody: `met` is the independent measure of what the judge's reward is worth.
The judge that fits it is trained in `notes-judge`. The demonstrator leaves wishes open as its skill has it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.environments.notes_words import (
    KINDS,
    OBJECTS,
    PLAIN,
    WISHES,
    all_met,
    things_named,
    verdict,
    wishes_met,
    write_note,
)
from ludus.judging import TERSE, Criterion, Judge, Rubric
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Reward, Rollout, Task

JUDGE = "judge"
NUM_TASKS = 20_000
HELD_OUT = 5
"""One in so many choices of things is never trained on."""
MOST_READ = 120
"""Bytes. The longest sentence has fewer; what overruns a small judge's context must not be left out for that."""
RUBRIC = Rubric((Criterion("pleases", "The user would use this reply."),), Judge(max_tokens=64), wording=TERSE)


class Notes(Environment):
    """Write a note that asks for two things, as it pleases."""

    name = "notes"
    version = "1"
    roles = (MAIN_ROLE, JUDGE)
    sampling = {"max_tokens": 48}

    def __init__(self, skill: float = 1.0) -> None:
        """
        Args:
            skill: share of the wishes that the demonstrator's notes meet; which, is drawn for each task.
        """
        if not 0 <= skill <= 1:
            raise ValueError(f"skill must be between 0 and 1, got {skill}")
        self.skill = skill

    def tasks(self, split: str) -> Iterator[Task]:
        """20,000 choices of two things."""
        rng = Random(f"notes {split}")
        for index in range(NUM_TASKS):
            things = choose_things(split, rng)
            yield Task(prompt=prompt_for(things), info={"things": things}, id=f"{split}-{index}")

    @reward
    async def pleases(self, rollout: Rollout, models: dict[str, Model]) -> list[Reward]:
        """What the judge says; nobody reads what is far longer than any note."""
        if len(rollout.reply.encode(errors="replace")) > MOST_READ:
            return [Reward("pleases", 0.0)]
        return await RUBRIC(rollout, models[JUDGE])

    @metric(independent=True)
    def met(self, task: Task, rollout: Rollout) -> float:
        """Whether every wish is met, which the judge is never told."""
        return float(all_met(rollout.reply, task.info["things"]))

    @metric
    def wishes(self, task: Task, rollout: Rollout) -> list[Reward]:
        """Each of the wishes."""
        met = wishes_met(rollout.reply, task.info["things"])
        return [Reward(wish, float(is_met)) for wish, is_met in met.items()]

    def demonstrate(self, task: Task) -> str:
        """A sentence, with some wishes left open, as its habit is."""
        rng = Random(f"notes expert {task.id}")
        left_open = {wish for wish in WISHES if wish != PLAIN and rng.random() >= self.skill}
        return write_note(task.info["things"], left_open, rng, habitual=True)

    def judge(self, task: Task, rollout: Rollout) -> str:
        """The verdict of a judge that makes no mistakes."""
        note, things = rollout.reply, task.info["things"]
        return verdict(note, things, all_met(note, things))

    def demonstrator_of(self, role: str) -> Callable[..., Any]:
        """The writer of notes, or a judge without mistakes, to compare others with."""
        return self.judge if role == JUDGE else self.demonstrate


def prompt_for(things: Sequence[str]) -> str:
    """What the writer of a note is asked."""
    return f"Ask for {things_named(things)}."


def choose_things(split: str, rng: Random) -> list[str]:
    """Two things that belong to a split, whatever their order."""
    while True:
        objects = rng.sample(OBJECTS, 2)
        things = [f"{rng.choice(KINDS)} {what}" for what in objects]
        held_out = zlib.crc32(" ".join(sorted(things)).encode()) % HELD_OUT == 0
        if held_out == (split == "test"):
            return things
