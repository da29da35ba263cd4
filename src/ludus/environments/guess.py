"""Find a hidden number from "higher" and "lower" in few turns: the quickstart.

A task is (low, high, hidden). Test tasks use ranges that training never shows. The scripted demonstrator guesses at
random inside what is still possible: sound, not good. Halving the range is for the learner to find.
"""

from __future__ import annotations

import random
import re
from collections.abc import Generator, Iterator
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.types import Message, Reply, Rollout, Task

NUMBER = re.compile(r"\d{1,4}")


class Guess(Environment):
    """Find a hidden number in a given range from "higher" and "lower" in at most `turns` guesses."""

    name = "guess"
    version = "1"
    sampling = {"max_tokens": 8}

    def __init__(self, turns: int = 6, narrowest: int = 29, widest: int = 33, largest: int = 40) -> None:
        """
        Args:
            turns: guesses before the game is lost.
            narrowest: fewest numbers in a range.
            widest: most numbers in a range.
            largest: largest number of any range; the smallest is 1.
        """
        if not 1 <= narrowest <= widest <= largest:
            raise ValueError(f"1 <= narrowest <= widest <= largest must hold, got {narrowest}, {widest}, {largest}")
        self.max_turns = turns
        self.narrowest, self.widest, self.largest = narrowest, widest, largest

    def ranges(self, split: str) -> list[tuple[int, int]]:
        """All ranges of a split: a fifth of them, drawn once for all seeds, is never trained on."""
        every = [
            (low, low + width - 1)
            for width in range(self.narrowest, self.widest + 1)
            for low in range(1, self.largest - width + 2)
        ]
        random.Random("guess ranges").shuffle(every)
        held_out = max(1, len(every) // 5)
        return every[:held_out] if split == "test" else every[held_out:]

    def tasks(self, split: str) -> Iterator[Task]:
        """20,000 games; each hides a number drawn at random in a range of the split."""
        ranges, rng = self.ranges(split), random.Random(f"guess {split}")
        for index in range(20_000):
            low, high = rng.choice(ranges)
            hidden = rng.randint(low, high)
            yield Task(
                prompt=f"{low} to {high}",
                info={"low": low, "high": high, "hidden": hidden},
                id=f"{split}-{index}-{low}-{high}-{hidden}",
            )

    def respond(self, ctx: Context, reply: Reply) -> str | None:  # type: ignore[override]
        """Compare the reply's number with the hidden one; anything else is told to be no number."""
        found = NUMBER.fullmatch(reply.text.strip())
        if not found:
            return "not a number"
        guess, hidden = int(found.group()), ctx.task.info["hidden"]
        return None if guess == hidden else "higher" if guess < hidden else "lower"

    @reward
    def solved(self, task: Task, rollout: Rollout) -> float:
        """1 if the last guess is the hidden number."""
        return float(rollout.reply.strip() == str(task.info["hidden"]))

    @metric
    def turns(self, rollout: Rollout) -> float:
        """Guesses used, right or wrong."""
        return float(rollout.num_turns)

    def demonstrate(self, task: Task, random: random.Random) -> Generator[str, list[Message], None]:  # type: ignore[override]
        """Guess at random inside what is still possible."""
        low, high = task.info["low"], task.info["high"]
        while True:
            guess = random.randint(low, high)
            answer: Any = (yield str(guess))[-1]["content"]
            low, high = (guess + 1, high) if answer == "higher" else (low, guess - 1)
