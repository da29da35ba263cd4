"""Say whether a note pleases, as those who labelled notes did: where the judge of `notes` is trained.

The labels are made as people's are: only good or bad, without why, and some of them wrong. The demonstrator's critiques
tell what a note has and has not, but it is lenient: below a skill of 1 it often gives the mark to any sentence. So
demonstrations teach how a critique is written, and the labels what pleases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random

from ludus.authoring.declare import metric
from ludus.environments.notes import NUM_TASKS, RUBRIC, choose_things, prompt_for
from ludus.environments.notes_words import NAMED, PLAIN, POLITE, WISHES, WORD, wishes_met, write_note
from ludus.environments.verdicts import Verdicts
from ludus.judging.labelled import Labelled, labelled
from ludus.types import Rollout, Task

GOOD, FAULT = 0.5, 0.4
"""Share of notes that are meant to please; of the others, share of the wishes that are left open."""


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
            note = write_note(things, () if rng.random() < GOOD else some_wishes(rng), rng)
            good = pleases(note, things)
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
        good = pleases(note, things) if rng.random() < self.skill else wishes_met(note, things)[PLAIN]
        return json.dumps({"reason": critique(note, things), "mark": int(good)})


def pleases(note: str, things: Sequence[str]) -> bool:
    """Whether it meets every wish."""
    return all(wishes_met(note, things).values())


def critique(note: str, things: Sequence[str]) -> str:
    """What a note has and has not.

    >>> critique("Find the red cube.", ["red cube", "new map"])
    '4 words, please no, sentence yes, red cube yes, new map no'
    """
    met = wishes_met(note, things)
    has = {"please": met[POLITE], "sentence": met[PLAIN]}
    has |= {thing: wishes_met(note, [thing])[NAMED] for thing in things}
    said = [f"{what} {'yes' if there else 'no'}" for what, there in has.items()]
    return ", ".join([f"{len(WORD.findall(note))} words", *said])


def some_wishes(rng: Random) -> list[str]:
    """One or more wishes to leave open."""
    while True:
        if some := [wish for wish in WISHES if rng.random() < FAULT]:
            return some
