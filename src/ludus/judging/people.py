"""What people said of rollouts, as criteria of a rubric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ludus.authoring.labels import Label
from ludus.judging.rubric import Criterion

PREFIX = {"good": "Has", "bad": "Avoids"}


def criteria(labels: Iterable[Label]) -> list[Criterion]:
    """The reasons that people gave, as criteria, commonest first; a weight is the share of all reasons that say this.

    >>> [c.text for c in criteria([Label(rollout="a", verdict="bad", why="Too long."),
    ...                            Label(rollout="b", verdict="good", why="polite")])]
    ['Avoids: too long', 'Has: polite']
    """
    reasons = [(label.verdict, " ".join(label.why.casefold().split()).rstrip(".!")) for label in labels]
    counts = Counter(reason for reason in reasons if reason[1])
    return [
        Criterion(f"{verdict}_{number}", f"{PREFIX[verdict]}: {why}", n / counts.total())
        for number, ((verdict, why), n) in enumerate(counts.most_common(), 1)
    ]
