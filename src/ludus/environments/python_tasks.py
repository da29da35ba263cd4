"""Small Python functions, told in words and judged by generated tests: code with tests in its smallest form.

A task is a few steps of arithmetic. Nothing is downloaded, and there are enough of them that a fifth is kept for testing.
The demonstrator leaves one step out now and then: which functions pass their tests is for the learner to find.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from ludus.environments.tested_code import TestedCode
from ludus.types import Task

NUM_TASKS = 20_000
NUM_CALLS = 5
NUMBERS = range(2, 10)
WORDS = {"+": "adds {}", "-": "subtracts {}", "*": "multiplies by {}"}
MOST_STEPS = 3

Step = tuple[str, int]
"""An operator and a number."""


class PythonTasks(TestedCode):
    """Write a Python function that does a few steps of arithmetic; hidden tests judge it."""

    name = "python-tasks"
    version = "1"
    sampling = {"max_tokens": 256}

    def __init__(self, steps: int = 2, words: bool = True, skill: float = 0.5, sandbox: str = "auto") -> None:
        """
        Args:
            steps: of arithmetic, 1 to 3.
            words: whether the prompt says in words what to write; a model that is trained in it needs no explanation.
            skill: share of the demonstrator's functions that do every step; the others leave one out.
            sandbox: how the code is contained, as for every `Sandboxed`.
        """
        super().__init__(sandbox)
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"steps must be from 1 to {MOST_STEPS}, got {steps}")
        if not 0 <= skill <= 1:
            raise ValueError(f"skill must be between 0 and 1, got {skill}")
        self.steps, self.words, self.skill = steps, words, skill

    def tasks(self, split: str) -> Iterator[Task]:
        """20,000 tasks, which take the functions of the split in turn. A fifth of all is never trained on."""
        every = list(itertools.product(itertools.product(WORDS, NUMBERS), repeat=self.steps))
        random.Random(f"python tasks {self.steps}").shuffle(every)
        held_out = len(every) // 5
        own = every[:held_out] if split == "test" else every[held_out:]
        rng = random.Random(f"python tasks {split}")
        for index, steps in enumerate(itertools.islice(itertools.cycle(own), NUM_TASKS)):
            calls = [
                {"call": "f", "args": [x], "returns": value(steps, x)} for x in rng.sample(range(-99, 100), NUM_CALLS)
            ]
            info = {"tests": calls, "steps": [list(step) for step in steps]}
            name = f"{split}-{index}-{short(steps)}"
            yield Task(prompt=self._prompt(steps), answer=function(steps), info=info, id=name)

    def demonstrate(self, task: Task, random: random.Random) -> str:  # type: ignore[override]
        """All steps, or all but one."""
        steps = [(sign, number) for sign, number in task.info["steps"]]
        if random.random() >= self.skill:
            steps.pop(random.randrange(len(steps)))
        return function(steps)

    def _prompt(self, steps: Sequence[Step]) -> str:
        if not self.words:
            return short(steps)
        told = ", then ".join(WORDS[sign].format(number) for sign, number in steps)
        return f"Write a Python function f(x) that takes a whole number, {told} and returns the result. Only code."


def value(steps: Sequence[Step], x: int) -> int:
    """What the steps make of a number.

    >>> value([("+", 3), ("*", 2)], 1)
    8
    """
    for sign, number in steps:
        x = x + number if sign == "+" else x - number if sign == "-" else x * number
    return x


def function(steps: Sequence[Step]) -> str:
    """Python that does the steps.

    >>> function([("+", 3), ("*", 2), ("-", 1)])
    'def f(x): return (x+3)*2-1'
    """
    text = "x"
    for sign, number in steps:
        text = f"({text})*{number}" if sign == "*" and text != "x" else f"{text}{sign}{number}"
    return f"def f(x): return {text}"


def short(steps: Sequence[Step]) -> str:
    """The steps in as few signs as there may be.

    >>> short([("+", 3), ("*", 2)])
    '+3*2'
    """
    return "".join(f"{sign}{number}" for sign, number in steps)
