"""A short evolutionary search over replies made of pieces, where some reward can be had without doing a task.

Pieces are words of the prompts, formats, known answers, and what the scorers themselves look for: texts in their code.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ludus.authoring.environment import Environment
from ludus.testing.audit.constants import constants_in
from ludus.testing.audit.injection import ORDERS
from ludus.testing.audit.policy import Policy, Strategy, prompt_of
from ludus.testing.audit.replies import FLATTERY
from ludus.types import Message, Task

PIECES = (
    "{prompt}", "yes", "no", "0", "1", "42", "1000000000", "A", "B", "True", "none", "\n", ".", "!", "?", "<answer>",
    "</answer>", "<think>", "</think>", "\\boxed{", "}", "####", "Answer:", "Final Answer:", "```", "```python", "{",
    '"answer":', "[", "]", "therefore", "because", "step by step", "I am certain", "please", "thank you",
    "Sources: [1]", "- ", "1. ", FLATTERY, ORDERS[0],
)  # fmt: skip
REPEATS = (1, 1, 1, 5, 50, 500)
MOST_CHARACTERS = 30_000
SURVIVORS = 6
"""Of each generation."""
GENERATION = 24


@dataclass(frozen=True)
class Template:
    """Pieces, one after another, said a number of times."""

    pieces: tuple[str, ...]
    repeat: int = 1
    between: str = " "

    def say(self, messages: Sequence[Message]) -> str:
        """The reply to a conversation."""
        text = self.between.join(self.pieces).replace("{prompt}", prompt_of(messages))
        return self.between.join([text] * self.repeat)[:MOST_CHARACTERS]

    def strategy(self) -> Strategy:
        shown = self.between.join(self.pieces)
        name = f"search: {shown if len(shown) <= 40 else shown[:37] + '...'!a}"
        name += f", {self.repeat} times" if self.repeat > 1 else ""
        return Strategy(name, "blind", Policy(name, lambda messages, tools: self.say(messages)))


async def search(
    earns: Callable[[Strategy], Awaitable[float]], pool: Sequence[str], num_tried: int, seed: int = 0
) -> list[Strategy]:
    """The best few strategies found.

    Args:
        earns: what a strategy earns that it does not deserve.
        pool: pieces, the most promising first.
        num_tried: templates that are tried, in all.
    """
    rng = random.Random(seed)
    scores: dict[Template, float] = {}
    tried = [Template((piece,)) for piece in pool[: num_tried // 2]]
    while len(scores) < num_tried:
        tried = [template for template in dict.fromkeys(tried) if template not in scores][: num_tried - len(scores)]
        for template in tried:
            scores[template] = await earns(template.strategy())
        best = sorted(scores, key=lambda template: -scores[template])[:SURVIVORS]
        tried = [_child(rng, best, pool) for _ in range(GENERATION)]
        if not set(tried) - scores.keys():
            break
    by_text = {template.say([]): template for template in sorted(scores, key=lambda template: scores[template])}
    best = sorted(by_text.values(), key=lambda template: (-scores[template], len(template.say([]))))
    return [template.strategy() for template in best[:3]]


def pool_of(env: Environment, tasks: Sequence[Task], known: Sequence[str]) -> list[str]:
    """Pieces for an environment, without repetition: texts in its scorers first."""
    words = Counter(word for task in tasks for word in set(prompt_of(task.messages()).split()))
    common = [word for word, _ in words.most_common(20)]
    return list(dict.fromkeys([*constants_in(env)[:60], *PIECES, *known[:10], *common]))


def _child(rng: random.Random, best: Sequence[Template], pool: Sequence[str]) -> Template:
    """Two templates crossed, or one changed."""
    one, other = rng.choice(best), rng.choice(best)
    pieces = list(one.pieces)
    match rng.randrange(5):
        case 0:
            pieces += other.pieces
        case 1:
            pieces.insert(rng.randrange(len(pieces) + 1), rng.choice(pool))
        case 2:
            pieces[rng.randrange(len(pieces))] = rng.choice(pool)
        case 3:
            return Template(one.pieces, rng.choice(REPEATS), rng.choice((" ", "\n", "")))
        case _:
            pieces = [rng.choice(pool) for _ in range(rng.randint(2, 6))]
    return Template(tuple(pieces[:8]), one.repeat, one.between)
