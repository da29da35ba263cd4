"""`reason-suite`: eight skills of reasoning-gym, each with a dial of five difficulties.

Tasks come in turn from every skill at every level, so the first few hundred measure all of them. The model ends its reply
with its answer and, if asked, with how sure it is; `ludus card RUN` makes a page of an evaluation: score by difficulty,
stated against real certainty, score by tokens.

Left out of reasoning-gym: families whose difficulty is not one number, and those with a common answer to guess. Here the
commonest answer of a skill at a level is right for at most four of ten tasks, and for one of nine on average.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.environments.reasoning_gym import ReasoningGym
from ludus.errors import ConfigError, UnknownName
from ludus.types import Reward, Rollout, Task

Dial = tuple[dict[str, Any], ...]


def _dial(names: Sequence[str], *levels: Sequence[int]) -> Dial:
    return tuple(dict(zip(names, level, strict=True)) for level in levels)


SKILLS: dict[str, tuple[str, Dial]] = {
    "sum": ("chain_sum", _dial(("min_terms", "max_terms", "min_digits", "max_digits"),
        (2, 2, 1, 1), (3, 3, 2, 2), (4, 4, 3, 3), (6, 6, 4, 4), (9, 9, 5, 5))),
    "gcd": ("gcd", _dial(("min_numbers", "max_numbers", "min_value", "max_value"),
        (2, 2, 2, 40), (2, 2, 41, 200), (2, 2, 201, 2_000), (2, 2, 2_001, 20_000), (2, 2, 20_001, 900_000))),
    "base": ("base_conversion", _dial(("min_base", "max_base", "min_value", "max_value"),
        (2, 4, 2, 20), (2, 8, 21, 100), (2, 16, 101, 1_000), (2, 24, 1_001, 20_000), (2, 36, 20_001, 900_000))),
    "spelling": ("spell_backward", _dial(("min_word_len", "max_word_len"), (3, 3), (4, 5), (6, 7), (8, 9), (10, 10))),
    "letters": ("letter_counting", _dial(("min_words", "max_words"), (6, 8), (11, 14), (20, 25), (40, 50), (80, 100))),
    "legs": ("leg_counting", _dial(("min_animals", "max_animals", "min_instances", "max_instances"),
        (1, 1, 1, 5), (2, 2, 2, 9), (4, 4, 2, 15), (7, 7, 5, 25), (12, 12, 10, 60))),
    "family": ("family_relationships", _dial(("min_family_size", "max_family_size"),
        (3, 3), (4, 4), (5, 6), (7, 8), (9, 11))),
    "sorting": ("word_sorting", _dial(("min_words", "max_words"), (3, 3), (5, 6), (9, 11), (16, 19), (28, 32))),
}  # fmt: skip
"""Family of reasoning-gym and its options at each level, by skill."""
LEVELS = 5
FAR = 10_000_000
"""Between the generators of two seeds: items of neighbouring ones would be the same."""
ANSWER = re.compile(r"^[^\w\n]{0,20}answer[^\w\n:]{0,20}:([^\n]*)", re.IGNORECASE | re.MULTILINE)
SURE = re.compile(
    r"^[^\w\n]{0,20}confidence[^\w\n:]{0,20}:[^\w\n]{0,20}(\d{1,3}(?:\.\d{1,9})?)[^\w\n]{0,20}$",
    re.IGNORECASE | re.MULTILINE,
)
MARKUP = " \t*_`"
FORM = "End your reply with a line 'Answer: ' and your answer."
SURE_FORM = (
    "End your reply with two lines: 'Answer: ' and your answer, then 'Confidence: ' and how sure you are that it is right, "
    "from 0% to 100%."
)


class ReasonSuite(Environment):
    """Eight skills with a dial of difficulty each, from reasoning-gym, answered with a stated confidence."""

    name = "reason-suite"
    version = "1"
    depends_on = ("reasoning-gym",)
    max_turns = 1

    def __init__(
        self,
        skills: str | Sequence[str] = (),
        levels: Sequence[int] = tuple(range(LEVELS)),
        seed: int = 0,
        confidence: bool = True,
    ) -> None:
        """
        Args:
            skills: which of them; by default all.
            levels: of difficulty, 0 to 4.
            seed: of the generators; tasks of two seeds are others.
            confidence: whether the model is asked how sure it is.
        """
        chosen = [skills] if isinstance(skills, str) else list(skills or SKILLS)
        for skill in chosen:
            if skill not in SKILLS:
                raise UnknownName("skill of reason-suite", str(skill), SKILLS)
        if not levels or any(type(level) is not int or not 0 <= level < LEVELS for level in levels):
            raise ConfigError(
                f"reason-suite: levels are 0 to {LEVELS - 1}, got {list(levels)}: no task has another one"
            )
        self.skills, self.levels, self.seed, self.confidence = chosen, list(dict.fromkeys(levels)), seed, confidence
        self._family = cache(self._open)
        self._family(chosen[0], self.levels[0])  # says now if reasoning-gym is not there

    def tasks(self, split: str) -> Iterator[Task]:
        """In turn one of every skill at every level."""
        streams = {
            (skill, level): iter(self._family(skill, level).tasks(split))
            for level in self.levels
            for skill in self.skills
        }
        while streams:
            for (skill, level), stream in list(streams.items()):
                task = next(stream, None)
                if task is None:
                    del streams[skill, level]
                else:
                    yield self._asked(task, skill, level)

    @reward
    def correct(self, task: Task, rollout: Rollout) -> float:
        """1 where the family's own checker gives the answer its full score."""
        family = self._family(task.info["skill"], task.info["level"])
        return float(family.grade(answer_in(rollout.reply), task) >= 1.0)

    @metric
    def confidence_stated(self, rollout: Rollout) -> list[Reward]:
        """How sure the model says it is, 0 to 1; nothing where it does not say."""
        sure = sureness(rollout.reply)
        return [] if sure is None else [Reward("confidence_stated", sure)]

    @metric
    def form(self, rollout: Rollout) -> float:
        """1 where the reply has the lines that were asked for."""
        has_answer = ANSWER.search(rollout.reply) is not None
        return float(has_answer and (not self.confidence or sureness(rollout.reply) is not None))

    def demonstrate(self, task: Task) -> str | None:
        """The family's own answer, where its checker gives that its full score."""
        answer = self._family(task.info["skill"], task.info["level"]).demonstrate(task)
        if answer is None or "\n" in answer:
            return None
        return f"Answer: {answer}" + ("\nConfidence: 100%" if self.confidence else "")

    def _asked(self, task: Task, skill: str, level: int) -> Task:
        form = SURE_FORM if self.confidence else FORM
        info = {**task.info, "skill": skill, "level": level, "difficulty": level}
        return Task(prompt=f"{task.prompt}\n\n{form}", answer=task.answer, info=info, id=f"{skill}-{level}-{task.id}")

    def _open(self, skill: str, level: int) -> ReasoningGym:
        family, dial = SKILLS[skill]
        return ReasoningGym(family, seed=self.seed * FAR, **dial[level])


def answer_in(reply: str) -> str:
    """What stands on the last line that begins with "Answer:"; of a reply without one, all but the confidence.

    >>> answer_in("So 6 * 7.\\n**Answer:** 42\\nConfidence: 90%"), answer_in("42\\nConfidence: 5%")
    ('42', '42')
    """
    found = ANSWER.findall(reply)
    return str(found[-1]).strip(MARKUP) if found else SURE.sub("", reply).strip()


def sureness(reply: str) -> float | None:
    """The stated confidence, 0 to 1; None where there is none, or one above 100 %."""
    found = [float(percent) / 100 for percent in SURE.findall(reply)]
    return found[-1] if found and found[-1] <= 1 else None
