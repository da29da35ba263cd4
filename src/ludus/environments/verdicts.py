"""Training a judge: a model writes a critique of a reply and a mark, and is rewarded where whoever labelled it agrees.

What it is asked is word for word what a rubric of one criterion asks its judge, so the model that comes out of the training
serves as the judge of any environment with that rubric.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator

from ludus.asking import Unusable
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.judging import Criterion, Rubric
from ludus.judging.labelled import Labelled, from_labels
from ludus.judging.rubric import value_in
from ludus.types import Rollout, Task

HELD_OUT = 0.2
"""Share of the prompts that are never trained on."""


class Verdicts(Environment):
    """Judge replies as those who labelled them did."""

    name = "verdicts"
    version = "1"
    sampling = {"max_tokens": 1024}
    rubric: Rubric
    """Of one criterion."""

    def __init__(self, labels: str, criterion: str, best: int = 1) -> None:
        """
        Args:
            labels: a file of labelled replies, as `ludus judge check` reads it.
            criterion: what the labels say of a reply.
            best: the best mark; 1 is yes or no.
        """
        self.rubric = Rubric((Criterion("good", criterion, best=best),))
        self._labelled = from_labels(labels)
        groups = sorted({one.group for one in self._labelled}, key=lambda group: zlib.crc32(group.encode()))
        self._held_out = frozenset(groups[: max(1, round(HELD_OUT * len(groups)))])

    def labelled(self, split: str) -> Iterable[Labelled]:
        """The labelled replies of a split; all replies to one prompt are in the same."""
        return [one for one in self._labelled if (one.group in self._held_out) == (split == "test")]

    def tasks(self, split: str) -> Iterator[Task]:
        """What the rubric asks of each reply; the answer is the verdict that its label stands for."""
        (criterion,) = self.rubric.criteria
        for index, one in enumerate(self.labelled(split)):
            (opening,) = self.rubric.openings(one.rollout)
            answer = json.dumps({"mark": round(one.truth * criterion.best)})
            info = {"label": one.truth, "reply": one.rollout.reply, **one.rollout.task.info}
            yield Task(prompt=opening, answer=answer, info=info, id=f"{split}-{index}")

    @reward
    def agrees(self, task: Task, rollout: Rollout) -> float:
        """1 less the distance of the mark from the label; what is no verdict agrees with nothing."""
        value = self.value(rollout)
        return 0.0 if value is None else 1 - abs(value - task.info["label"])

    @metric
    def readable(self, rollout: Rollout) -> float:
        """Whether it is a verdict."""
        return float(self.value(rollout) is not None)

    def value(self, rollout: Rollout) -> float | None:
        """The mark, as a share of the best one; None for what is no verdict."""
        try:
            return value_in(rollout.reply, self.rubric.criteria[0])
        except Unusable:
            return None
