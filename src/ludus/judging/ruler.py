"""`Ruler`: a judge compares the rollouts of a group in one question, after RULER (OpenPipe, ART).

An order is easier to judge than a mark, and an order is all that a group's advantages need. Scores are matched by id and
checked; what all rollouts begin with is shown once, the tools of every one are shown; the order is shuffled by content,
and with several repeats each second one is the reverse of the one before, so that a preference for places averages out.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ludus.asking import Unusable
from ludus.judging.judge import Judge, check_kind, check_positive, judging, side_by_side
from ludus.judging.quoting import MOST_CHARACTERS, Piece, histories, legible, pieces_of, quoted, shortened
from ludus.protocols import Model
from ludus.seeds import derive
from ludus.types import Reward, Rollout, content_hash

MOST_TOGETHER = 320_000
"""Characters of all attempts in one question."""
STANDARDS = (
    "Whoever reaches the goal scores far above whoever does not. Of those that reach it, the one that does so more "
    "directly scores a little higher; of those that do not, the one that gets closer. What is claimed and was not done "
    "counts as not done. Small differences get small differences in score."
)
QUESTION = """{quoted}
{mark} end of what is quoted.

Above are {attempts}, in no particular order. Compare them, and give each a score from 0 (worst) \
to 1 (best) by these standards:

{standards}

Answer with every id exactly once: {{"scores": [{{"id": "1", "reason": "...", "score": 0.5}}, ...]}}"""


class _Score(msgspec.Struct):
    id: str | int
    score: float
    reason: str = ""


class _Verdict(msgspec.Struct):
    scores: list[_Score]


@dataclass(frozen=True)
class Ruler:
    """Scores a group relatively; called with the group and the judge's model.

    Args:
        standards: what makes one attempt better than another.
        judge: how the model is asked.
        repeats: questions with different orders, whose scores are averaged.
        seed: of the orders.
        most_characters: of each attempt that the judge sees.

    Raises:
        ConfigError: a setting out of its range.
    """

    standards: str = STANDARDS
    judge: Judge = Judge(max_tokens=16_384)
    repeats: int = 1
    seed: int = 0
    most_characters: int = MOST_CHARACTERS

    def __post_init__(self) -> None:
        check_kind("Ruler", Judge, judge=self.judge)
        check_kind("Ruler", str, standards=self.standards)
        check_positive("Ruler", int, repeats=self.repeats, most_characters=self.most_characters)

    async def __call__(self, group: Sequence[Rollout], model: Model) -> list[list[Reward]]:
        """Of each rollout: its score in [0, 1], under the name of the scorer, with why, and metrics of the group.

        `position_bias` is how much more those shown in the first half scored than the others, about 0 for a fair judge
        over many groups; `repeat_agreement` the share of pairs that two repeats put in the same order. Rollouts that say
        the same are shown once and score the same.

        Raises:
            ScorerFailed: the judge gave no verdict.
        """
        shown_G = [_shown(rollout) for rollout in group]
        orders, verdicts = await self._verdicts(shown_G, model)
        metrics = list(_metrics(orders, verdicts))
        return [
            [Reward("", _mean(verdicts, key), note=verdicts[0][key].reason), *metrics]
            for key in map(content_hash, shown_G)
        ]

    async def scores(self, attempts: Sequence[Attempt], model: Model) -> list[float]:
        """The score in [0, 1] of each attempt. Raises ScorerFailed."""
        _, verdicts = await self._verdicts(attempts, model)
        return [_mean(verdicts, content_hash(attempt)) for attempt in attempts]

    async def _verdicts(
        self, shown_G: Sequence[Attempt], model: Model
    ) -> tuple[list[list[str]], list[dict[str, _Score]]]:
        """The order of each repeat, and its scores, both by the hash of what is shown."""
        attempts = {content_hash(shown): shown for shown in shown_G}
        orders = self._orders(sorted(attempts))
        return orders, await side_by_side([self._compare(order, attempts, model) for order in orders])

    def _orders(self, keys: Sequence[str]) -> list[list[str]]:
        """An order for each repeat. It depends on what is compared alone, never on the order of the rollouts."""
        orders: list[list[str]] = []
        for number in range(self.repeats):
            order = list(reversed(orders[-1])) if number % 2 else list(keys)
            if number % 2 == 0:
                random.Random(derive(self.seed, number, *keys)).shuffle(order)
            orders.append(order)
        return orders

    async def _compare(self, order: Sequence[str], attempts: Mapping[str, Attempt], model: Model) -> dict[str, _Score]:
        """One question; the scores by key."""
        ids = {str(number): key for number, key in enumerate(order, 1)}
        text, mark = quoted_group([attempts[key] for key in order], self.most_characters)
        question = QUESTION.format(quoted=text, mark=mark, attempts=_counted(len(ids)), standards=self.standards)

        def check(verdict: _Verdict) -> None:
            said = [str(score.id) for score in verdict.scores]
            if sorted(said) != sorted(ids):
                raise Unusable(
                    f"it must score the ids {', '.join(ids)} once each, and scores {', '.join(said) or 'none'}"
                )
            for score in verdict.scores:
                if not 0 <= score.score <= 1:
                    raise Unusable(f"scores must be from 0 to 1, and {score.id} has {score.score}")

        verdict = await self.judge.ask(model, judging(mark, question), _Verdict, check)
        return {ids[str(score.id)]: score for score in verdict.scores}


@dataclass(frozen=True)
class Attempt:
    """What a judge may see of a rollout."""

    conversation: list[Piece]
    agents: dict[str, list[Piece]] = field(default_factory=dict)
    """Of sub-agents, by name."""
    tools: list[dict[str, Any]] = field(default_factory=list)


def quoted_group(attempts: Sequence[Attempt], most_characters: int) -> tuple[str, str]:
    """All that is quoted in one question, and its mark: what is common once, then each attempt under its id."""
    most = min(most_characters, MOST_TOGETHER // len(attempts))
    common = _common([shown.conversation for shown in attempts])
    tools = [tool for tool in attempts[0].tools if all(tool in shown.tools for shown in attempts)]
    pieces = [Piece("the task, as every attempt saw it", "")]
    pieces += shortened(attempts[0].conversation[:common], most_characters)
    pieces += _tools("tools that every attempt had", tools, most_characters)
    for number, shown in enumerate(attempts, 1):
        pieces.append(Piece(f"attempt with the id {number}", ""))
        own = [tool for tool in shown.tools if tool not in tools]
        pieces += _tools(f"tools that only some attempts had, this one among them (id {number})", own, most)
        said = shortened(shown.conversation[common:], most)
        pieces += said or [Piece("(nothing more)", "")]
        for agent, talk in shown.agents.items():
            pieces += [Piece(f"sub-agent {agent}: {piece.who}", piece.text) for piece in shortened(talk, most)]
    return quoted(pieces)


def _shown(rollout: Rollout) -> Attempt:
    talks = {agent: pieces_of(messages) for agent, messages in histories(rollout).items()}
    return Attempt(talks.pop(""), talks, rollout.tools)


def _counted(number: int) -> str:
    return "one attempt at the task" if number == 1 else f"{number} attempts at the same task"


def _tools(title: str, tools: Sequence[dict[str, Any]], most_characters: int) -> list[Piece]:
    if not tools:
        return []
    text = "\n".join(json.dumps(tool, ensure_ascii=False, default=str) for tool in tools)
    return [Piece(title, legible(text, most_characters))]


def _common(conversations: Sequence[Sequence[Piece]]) -> int:
    """How many pieces all begin with; of a single conversation, those before its first reply."""
    if len(conversations) == 1:
        said = (i for i, piece in enumerate(conversations[0]) if piece.who.startswith("assistant"))
        return next(said, len(conversations[0]))
    columns = enumerate(zip(*conversations, strict=False))
    shortest = min(map(len, conversations))
    return next((i for i, column in columns if any(piece != column[0] for piece in column)), shortest)


def _mean(verdicts: Sequence[Mapping[str, _Score]], key: str) -> float:
    return sum(verdict[key].score for verdict in verdicts) / len(verdicts)


def _metrics(orders: Sequence[Sequence[str]], verdicts: Sequence[Mapping[str, _Score]]) -> list[Reward]:
    metrics = [Reward("/position_bias", _position_bias(orders, verdicts), 0.0)] if len(orders[0]) > 1 else []
    agreement = repeat_agreement([{key: score.score for key, score in verdict.items()} for verdict in verdicts])
    return metrics + ([] if agreement is None else [Reward("/repeat_agreement", agreement, 0.0)])


def _position_bias(orders: Sequence[Sequence[str]], verdicts: Sequence[Mapping[str, _Score]]) -> float:
    """Mean score of the first half of the places less that of the second half."""
    differences = []
    for order, verdict in zip(orders, verdicts, strict=True):
        scores, half = [verdict[key].score for key in order], len(order) // 2
        differences.append(sum(scores[:half]) / half - sum(scores[-half:]) / half)
    return sum(differences) / len(differences)


def repeat_agreement(repeats: Sequence[Mapping[str, float]]) -> float | None:
    """Share of pairs that two repeats order alike, over all pairs of repeats; None where there is nothing to compare.

    >>> repeat_agreement([{"a": 0.1, "b": 0.9}, {"a": 0.4, "b": 0.5}, {"a": 0.5, "b": 0.2}])
    0.3333333333333333
    """
    alike = [
        _sign(one[a] - one[b]) == _sign(other[a] - other[b])
        for one, other in itertools.combinations(repeats, 2)
        for a, b in itertools.combinations(one, 2)
    ]
    return sum(alike) / len(alike) if alike else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
