"""What the role "judge" is asked here: a mark for one text, or which of several attempts is best."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from ludus.judging.judge import DEFAULT_JUDGE, NoVerdict, judging
from ludus.judging.quoting import Piece, mark_for, pieces_of, quote, shortened
from ludus.protocols import Model
from ludus.types import Message, Task

JUDGE = "judge"
BEST_MARK = 10
CHOOSE = (
    "Above are several attempts at one task. Which one is best: right first of all, then clear? Answer with its number: "
    '{"reason": "...", "best": 1}'
)


class _Mark(msgspec.Struct):
    mark: float
    reason: str = ""


class _Choice(msgspec.Struct):
    best: int
    reason: str = ""


async def score_of(judge: Model, rubric: str, task: Task, name: str, text: str) -> float:
    """The judge's score of one text, 0 to 1. Raises ScorerFailed or ModelCallFailed where there is no verdict."""

    def check(verdict: _Mark) -> None:
        if not 0 <= verdict.mark <= BEST_MARK:
            raise NoVerdict(f"the mark must be from 0 to {BEST_MARK}, got {verdict.mark:g}")

    ask = f'{rubric}\n\nGive a mark from 0 to {BEST_MARK}. Answer: {{"reason": "...", "mark": 0}}'
    verdict = await DEFAULT_JUDGE.ask(judge, _opening(task, [Piece(name, text)], ask), _Mark, check)
    return verdict.mark / BEST_MARK


async def best_of(judge: Model, rng: random.Random, task: Task, attempts: Sequence[str]) -> int:
    """The place of the attempt that the judge takes for the best; they are shown in an order drawn at random.

    Raises ScorerFailed or ModelCallFailed where there is no verdict.
    """
    order = rng.sample(range(len(attempts)), len(attempts))

    def check(verdict: _Choice) -> None:
        if not 1 <= verdict.best <= len(order):
            raise NoVerdict(f"best must be the number of an attempt, 1 to {len(order)}, got {verdict.best}")

    pieces = [Piece(f"attempt {number}", attempts[place]) for number, place in enumerate(order, 1)]
    verdict = await DEFAULT_JUDGE.ask(judge, _opening(task, pieces, CHOOSE), _Choice, check)
    return order[verdict.best - 1]


def _opening(task: Task, pieces: Sequence[Piece], ask: str) -> list[Message]:
    """The judge's conversation: the task, what is to be judged, and the question."""
    quoted = shortened([*pieces_of(task.messages()), *pieces])
    mark = mark_for([f"{piece.who}\n{piece.text}" for piece in quoted])
    return judging(mark, f"{quote(mark, quoted)}\n{mark} end of what is quoted.\n\n{ask}")
