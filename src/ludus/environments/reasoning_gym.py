"""Every family of the reasoning-gym package as an environment: `rg:spell_backward`.

Items of reasoning-gym are seeded by seed + index, so the data sets of neighbouring seeds overlap almost entirely. Here
one stream of items is split by content: the hash of an item's question says to which split it belongs, so no question
is in both. Families whose own answer is missing or doesn't score 1 load, but can't demonstrate.

The package runs with streams of its own, as one family seeds numpy's for everybody, and prints into the log; nothing
of a reply is evaluated (see `reasoning_gym_replies`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ludus.authoring.declare import reward
from ludus.authoring.environment import Environment
from ludus.environments.isolation import Streams, drawn_from, isolate
from ludus.environments.reasoning_gym_replies import FORMULAS, evaluate_only_literals, has_nan, is_formula, same_numbers
from ludus.errors import ConfigError, MissingExtra, UnknownName
from ludus.types import Rollout, Task, content_hash

PACKAGE = "reasoning_gym"
TRUE_OR_FALSE = "game_of_life_halting"
"""A family whose own checker takes any reply for the right one."""
ANY_NUMBERS = "puzzle24"
"""A family whose own checker does not look whether a formula has the numbers of its task."""
STREAM_SIZES = (200_000, 20_000)
"""Items looked at for tasks: as many as the family agrees to."""
BARREN = 2_000
"""Items in a row without a new question after which a family is taken to be used up."""
RECENT = 4_096
"""Items kept: the rollouts of a group are scored against the same one, and some are slow to make."""


class ReasoningGym(Environment):
    """Single-turn tasks of one reasoning-gym family, scored by its own checker."""

    version = "1"
    depends_on = ("reasoning-gym",)
    max_turns = 1

    def __init__(self, family: str, seed: int = 0, **config: Any) -> None:
        """
        Args:
            family: name of the data set in reasoning-gym.
            seed: of its generator.
            **config: the family's own parameters.
        """
        names = families()
        if family not in names:
            raise UnknownName("reasoning-gym family", family, names, "ludus env list rg:")
        isolate(PACKAGE)
        evaluate_only_literals()
        self.family = family
        self._items = _stream(family, {"seed": seed, **config})
        self._item = lru_cache(RECENT)(self._make)

    def tasks(self, split: str) -> Iterator[Task]:
        """Distinct questions whose hash belongs to the split; a fifth of all are for testing."""
        seen: set[str] = set()
        barren = 0
        for index in range(len(self._items)):
            item = self._item(index)
            key = content_hash(item["question"]) if item else ""
            if item is None or key in seen:
                barren += 1
                if barren >= BARREN:
                    return
                continue
            barren = 0
            seen.add(key)
            if (int(key, 16) % 5 == 0) == (split == "test"):
                answer = item["answer"]
                yield Task(prompt=item["question"], answer=answer, info={"index": index}, id=f"{self.family}-{key}")

    @reward
    def score(self, task: Task, rollout: Rollout) -> float:
        """The family's own score in [0, 1]; a reply that its checker can't read scores 0."""
        return self.grade(rollout.reply.strip(), task)

    def demonstrate(self, task: Task) -> str | None:
        """The known answer, if the family's own checker gives it 1."""
        answer = task.answer
        return answer if isinstance(answer, str) and self.grade(answer, task) == 1.0 else None

    def _make(self, index: int) -> dict[str, Any] | None:
        """An item; None where the generator gives up on it, as some (maze) now and then do."""
        try:
            with drawn_from(Streams(index)):
                item: dict[str, Any] = self._items[index]
        except (RuntimeError, ValueError, LookupError, AssertionError):
            return None
        return item

    def grade(self, text: str, task: Task) -> float:
        """The family's own score of a text, in [0, 1]; 0 for what its checker can't read."""
        item = self._item(task.info["index"])
        assert item is not None  # it was made for the task
        family = item["metadata"].get("source_dataset", self.family)  # another one's, where that is a composite
        if family == TRUE_OR_FALSE:
            return float(text.casefold() == str(task.answer).casefold())
        if family == ANY_NUMBERS and not same_numbers(text, str(task.answer)):
            text = ""
        if (family in FORMULAS and not is_formula(text)) or (has_nan(text) and not has_nan(str(task.answer))):
            text = ""
        try:
            with drawn_from(Streams(task.info["index"])):
                return float(self._items.score_answer(text, item))
        except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError, RecursionError):
            return 0.0  # some checkers parse the reply without guarding themselves


def _stream(family: str, config: dict[str, Any]) -> Any:
    """The longest data set that the family agrees to make. Raises ConfigError with its reason."""
    import reasoning_gym

    reason = ""
    for size in STREAM_SIZES:
        try:
            return reasoning_gym.create_dataset(family, size=size, **config)
        except (TypeError, AssertionError, ValueError, KeyError) as error:
            reason = str(error)
    raise ConfigError(f"rg:{family} refused {config}: {reason}")


def families() -> list[str]:
    """Names of all families. Raises MissingExtra."""
    try:
        import reasoning_gym
    except ImportError:
        raise MissingExtra("environments of reasoning-gym", "rg") from None
    names: list[str] = sorted(reasoning_gym.factory.DATASETS)
    return names
