"""What the role "judge" is asked about a rollout that is still under way: a mark for a text, or which of several is best.

A judge without a verdict is a failure of the infrastructure, never a score: see `ludus.judging`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ludus.judging import Criterion, Ruler
from ludus.judging.quoting import Piece, legible, pieces_of, shortened
from ludus.judging.rubric import mark_of
from ludus.judging.ruler import Attempt
from ludus.protocols import Model
from ludus.types import Task

JUDGE = "judge"
BEST_MARK = 10
RULER = Ruler()


def criterion(name: str, text: str) -> Criterion:
    """What a text is marked by, from 0 to 10."""
    return Criterion(name, text, best=BEST_MARK)


async def score_of(judge: Model, asked: Criterion, task: Task, text: str) -> float:
    """The judge's mark of a text by a criterion, 0 to 1. Raises ScorerFailed where there is no verdict."""
    return await mark_of(asked, [*task_pieces(task), Piece(asked.name, legible(text))], judge)


async def best_of(judge: Model, task: Task, attempts: Sequence[str]) -> int:
    """The place of the attempt that the judge takes for the best. Raises ScorerFailed where there is no verdict."""
    shown = [Attempt([*task_pieces(task), Piece("assistant", text)]) for text in attempts]
    scores = await RULER.scores(shown, judge)
    return scores.index(max(scores))


def task_pieces(task: Task) -> list[Piece]:
    """A task as a judge is shown it: what the model was given, and no answer."""
    return shortened(pieces_of(task.messages()))
