"""Say whether a note pleases, as those who labelled notes did: where the judge of `notes` is trained.

The labels are made as people's are: only good or bad, without why, and some of them wrong. The demonstrator's critiques
tell what a note has and has not, but it is lenient: below a skill of 1 it often gives the mark to any sentence. So
demonstrations teach how a critique is written, and the labels what pleases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from ludus.authoring.declare import metric
from ludus.environments.notes import NUM_TASKS, RUBRIC, choose_things, prompt_for
from ludus.environments.notes_words import PLAIN, WISHES, all_met, verdict, wishes_met, write_junk, write_note
from ludus.environments.verdicts import Verdicts
from ludus.judging.labelled import Labelled, labelled
from ludus.types import Rollout, Task

GOOD, JUNK, FAULT = 0.5, 0.1, 0.4
"""Share of notes that are meant to please; of the others, share of those that are no notes at all, and of the rest share
of the wishes that are left open."""


class NotesJudge(Verdicts):
    """Say whether a note pleases."""

    name = "notes-judge"
    version = "1"
    sampling = {"max_tokens": 64}
    rubric = RUBRIC

    def __init__(self, slips: float = 0.0, skill: float = 1.0) -> None:
        """
        Args:
            slips: share of labels that are wrong.
            skill: share of the demonstrator's marks that go by every wish; the others by whether it is a sentence.
        """
        for option, value in (("slips", slips), ("skill", skill)):
            if not 0 <= value <= 1:
                raise ValueError(f"{option} must be between 0 and 1, got {value}")
        self.slips, self.skill = slips, skill

    def labelled(self, split: str) -> Iterator[Labelled]:
        """20,000 notes, half of them meant to please."""
        rng = Random(f"notes judge {split}")
        for number in range(NUM_TASKS):
            things = choose_things(split, rng)
            note = some_note(things, rng)
            good = all_met(note, things)
            label = good != (rng.random() < self.slips)
            task = Task(prompt=prompt_for(things), info={"things": things, "good": good})
            yield labelled(task, note, float(label), number)

    @metric(independent=True)
    def right(self, task: Task, rollout: Rollout) -> float:
        """Whether the mark is what the label would be without slips."""
        return float(self.value(rollout) == float(task.info["good"]))

    def demonstrate(self, task: Task) -> str:
        """What the note has and has not, and a mark."""
        rng = Random(f"notes judge expert {task.id}")
        note, things = task.info["reply"], task.info["things"]
        good = all_met(note, things) if rng.random() < self.skill else wishes_met(note, things)[PLAIN]
        return verdict(note, things, good)


def some_note(things: Sequence[str], rng: Random) -> str:
    """A note as anybody might write it."""
    if rng.random() < GOOD:
        return write_note(things, (), rng)
    return write_junk(things, rng) if rng.random() < JUNK else write_note(things, some_wishes(rng), rng)


def some_wishes(rng: Random) -> list[str]:
    """One or more wishes to leave open."""
    while True:
        if some := [wish for wish in WISHES if rng.random() < FAULT]:
            return some
