"""Find a hidden word in a few guesses; each letter of a guess is answered by a mark.

Words are our own lists, which come with the package: common ones of three to five letters that may be hidden, and, of
five letters, rarer ones that may be guessed. A fifth of the words are hidden in test tasks only. The demonstrator
guesses among the words that are still possible: sound, not good. Which guess tells most is for the learner to find.

Fewer letters, words and turns make a game that a tiny model learns on a CPU. With few words it learns by heart which
ones training hides, and guesses no others: so small a game says nothing about words it has not seen.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.types import MAIN_ROLE, Message, Reply, Rollout, Task

NUM_TASKS = 20_000
PLACED, PRESENT, ABSENT = "G", "Y", "-"
BRACKETED = re.compile(r"\[\s*([a-z]+)\s*\]")
LOOKED_AT = 3
"""Possible words among which the demonstrator takes the one with the commonest letters."""
FEWEST_WORDS = 5
"""So that a fifth of them is at least one."""


class Wordle(Environment):
    """Find a hidden word of `letters` letters in at most `turns` guesses."""

    name = "wordle"
    version = "1"
    sampling = {"max_tokens": 512}

    def __init__(
        self, letters: int = 5, turns: int = 6, words: int | None = None, choices: int = 0, rules: bool = True
    ) -> None:
        """
        Args:
            letters: of the hidden word: 3, 4 or 5.
            turns: guesses before the game is lost.
            words: how many words there are, hidden or guessed; by default all.
            choices: words that the prompt names, of which one is hidden; 0 names none.
            rules: whether the prompt explains the game; a model that is trained in it needs no explanation.
        """
        secrets, rarer = read_words("wordle_secrets.txt", letters), read_words("wordle_guesses.txt", letters)
        if not secrets:
            raise ValueError(f"letters must be 3, 4 or 5, got {letters}")
        if turns < 1:
            raise ValueError(f"turns must be at least 1, got {turns}")
        if words is not None and not FEWEST_WORDS <= words <= len(secrets):
            raise ValueError(f"words must be between {FEWEST_WORDS} and {len(secrets)}, got {words}")
        most_choices = (words or len(secrets)) // 5
        if choices and not 2 <= choices <= most_choices:
            raise ValueError(f"choices must be 0, or between 2 and {most_choices}, a fifth of all words, got {choices}")
        shuffled = random.Random(f"wordle {letters}").sample(secrets, len(secrets))
        self.secrets = shuffled[:words]
        self.allowed = frozenset(self.secrets if words else [*secrets, *rarer])
        self.max_turns, self.letters, self.choices, self.rules = turns, letters, choices, rules

    def words(self, split: str) -> list[str]:
        """The words that the tasks of a split hide."""
        held_out = len(self.secrets) // 5
        return self.secrets[:held_out] if split == "test" else self.secrets[held_out:]

    def tasks(self, split: str) -> Iterator[Task]:
        """20,000 games, which hide the words of the split in turn."""
        opening = self._rules() if self.rules else f"{self.letters} letters, {self.max_turns} guesses"
        words, rng = self.words(split), random.Random(f"wordle {split}")
        for index, word in enumerate(itertools.islice(itertools.cycle(words), NUM_TASKS)):
            task_id = f"{split}-{index}-{word}"
            if not self.choices:
                yield Task(prompt=opening, answer=word, id=task_id)
                continue
            others = rng.sample([other for other in words if other != word], self.choices - 1)
            shown = rng.sample([word, *others], self.choices)
            yield Task(prompt=f"{opening}: {' '.join(shown)}", answer=word, info={"choices": shown}, id=task_id)

    def respond(self, ctx: Context, reply: Reply) -> str | None:  # type: ignore[override]
        """Mark the letters of the guess; what is no word is said to be none, and costs a turn all the same."""
        guess = read_guess(reply.text)
        if guess == ctx.task.answer:
            return None
        if guess not in self.allowed:
            return "not a word"
        return " ".join(letter + mark for letter, mark in zip(guess, marks(guess, ctx.task.answer), strict=True))

    @reward
    def solved(self, task: Task, rollout: Rollout) -> float:
        """1 if the last guess is the hidden word."""
        return float(read_guess(rollout.reply) == task.answer)

    @reward(weight=0.3)
    def early(self, task: Task, rollout: Rollout) -> float:
        """The share of turns that a solved game left unused."""
        return self.solved(task, rollout) * (1 - rollout.num_turns / self.max_turns)

    @metric
    def valid(self, rollout: Rollout) -> float:
        """The share of guesses that are words."""
        guesses = _guesses(rollout)
        return sum(guess in self.allowed for guess in guesses) / max(1, len(guesses))

    @metric
    def greens(self, task: Task, rollout: Rollout) -> float:
        """The most letters in their place in one guess, as a share of all."""
        words = [guess for guess in _guesses(rollout) if guess in self.allowed]
        return max((marks(guess, task.answer).count(PLACED) for guess in words), default=0) / self.letters

    def demonstrate(  # type: ignore[override]
        self, task: Task, random: random.Random
    ) -> Generator[str, list[Message], None]:
        """Of a few words that are still possible, the one whose letters are commonest among all that are."""
        possible: Sequence[str] = task.info.get("choices") or self.secrets
        while True:
            counts = Counter(letter for word in possible for letter in set(word))
            some = random.sample(possible, min(LOOKED_AT, len(possible)))
            guess = max(some, key=lambda word: sum(counts[letter] for letter in set(word)))
            answer: Any = (yield guess)[-1]["content"]
            seen = answer.replace(" ", "")[1::2]
            possible = [word for word in possible if marks(guess, word) == seen]

    def _rules(self) -> str:
        ending = " It is one of these" if self.choices else ""
        return (
            f"Find the hidden word of {self.letters} letters in at most {self.max_turns} guesses. Reply with your "
            f"guess alone, or with the guess in [brackets]. Each letter of it is answered with a mark: {PLACED} it is in "
            f"this place, {PRESENT} it is in the word but elsewhere, {ABSENT} it is not in the word (or not that often)."
            + ending
        )


def marks(guess: str, secret: str) -> str:
    """The marks of a guess, one for each letter.

    A letter is marked at most as often as the secret has it: in its place first, then from the left.

    >>> marks("allot", "label"), marks("geese", "elder")
    ('YYY--', '-YY--')
    """
    left = Counter(s for g, s in zip(guess, secret, strict=True) if g != s)
    result = []
    for g, s in zip(guess, secret, strict=True):
        if g == s:
            result.append(PLACED)
        elif left[g] > 0:
            left[g] -= 1
            result.append(PRESENT)
        else:
            result.append(ABSENT)
    return "".join(result)


def read_guess(text: str) -> str:
    """The word that a reply guesses: the last one in [brackets], or the whole of the reply.

    >>> read_guess(" Crane "), read_guess("[crane] is taken, so [SLATE]")
    ('crane', 'slate')
    """
    text = text.strip().lower()
    bracketed = BRACKETED.findall(text)
    return bracketed[-1] if bracketed else text


@lru_cache
def read_words(file: str, letters: int) -> tuple[str, ...]:
    """The words of one length in a list that comes with the package."""
    text = files(__package__).joinpath(file).read_text(encoding="utf-8")
    return tuple(word for word in text.split() if len(word) == letters)


def _guesses(rollout: Rollout) -> list[str]:
    return [read_guess(call.reply.get("content") or "") for call in rollout.calls if call.role == MAIN_ROLE]
