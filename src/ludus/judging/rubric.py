"""`Rubric`: weighted criteria, each checked alone, so that a judge never trades one for another.

A reference judge is a rubric of one criterion that is shown the known answer (`reference_judge`).
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import msgspec

from ludus.asking import Unusable, read_object
from ludus.errors import ConfigError, ScorerFailed
from ludus.judging.judge import DEFAULT_JUDGE, SYSTEM, Judge, check_kind, check_positive, judging, side_by_side
from ludus.judging.quoting import MOST_CHARACTERS, Piece, histories, legible, pieces_of, quoted, shortened
from ludus.protocols import Model
from ludus.types import Message, Reward, Rollout

QUESTION = """{quoted}
{mark} end of what is quoted.

Check one criterion alone, and nothing else that you may like or dislike about what the assistant did:

{criterion}

First say in one or two sentences what speaks for and against it, then give a mark: {marks}. If it can't be told, the mark \
is 0. Answer: {{"reason": "...", "mark": 0}}"""
SAME_ANSWER = (
    "The assistant's final answer says the same as the reference answer. Another wording, order, unit or notation of the "
    "same is fine; an answer that hedges between several, leaves out a part, adds something that contradicts the "
    "reference, or does not commit itself is not."
)


MOST_WEIGHT = 1_000_000


class Criterion(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is checked.

    Raises:
        ConfigError: a field of the wrong type or range.
    """

    name: str
    """Its name as a metric."""
    text: str
    """What must hold, so that two people would agree whether it does."""
    weight: float = 1.0
    """Below 0: a fault, which takes away from the reward where it holds."""
    best: int = 1
    """The best mark; 1 is yes or no."""

    def __post_init__(self) -> None:
        problem = (
            "name and text must be texts that are not empty"
            if not all(isinstance(text, str) and text.strip() for text in (self.name, self.text)) else
            f"weight must be a number other than 0, of at most {MOST_WEIGHT:,}, got {self.weight!r}"
            if not isinstance(self.weight, int | float) or not 0 < abs(self.weight) <= MOST_WEIGHT else
            f"best must be a whole number from 1 to 100, got {self.best!r}"
            if type(self.best) is not int or not 1 <= self.best <= 100 else
            ""
        )  # fmt: skip
        if problem:
            raise ConfigError(f"criterion {self.name!r}: {problem}")


class Verdict(msgspec.Struct):
    """What a judge says of one criterion."""

    mark: float | bool
    reason: str = ""


def value_in(text: str, criterion: Criterion) -> float:
    """The mark in a judge's reply, as a share of the best one. Raises Unusable."""
    verdict = read_object(text, Verdict)
    _check_range(verdict, criterion)
    return int(verdict.mark) / criterion.best


@dataclass(frozen=True)
class Wording:
    """The words in which a rubric asks. Those by default are for models that follow instructions; a model that is trained
    to judge takes far fewer.

    Args:
        system: what the judge is told first, which may name {mark}; "" for nothing.
        question: names {quoted}, {mark} and {criterion}; it may name {marks}, those that there are.

    Raises:
        ConfigError: a question that leaves one of them out, or names something else.
    """

    system: str = SYSTEM
    question: str = QUESTION

    def __post_init__(self) -> None:
        for text, needed, known in (
            (self.system, set[str](), {"mark"}),
            (self.question, {"quoted", "mark", "criterion"}, {"quoted", "mark", "criterion", "marks"}),
        ):
            try:
                named = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
            except ValueError as error:
                raise ConfigError(f"a judge's wording is no format: {error}, in {text[:60]!r}") from None
            if not needed <= named <= known:
                raise ConfigError(
                    f"a judge's wording must name {', '.join(sorted(needed)) or 'nothing'}, and may name "
                    f"{', '.join(sorted(known))}; got {', '.join(sorted(named)) or 'nothing'} in {text[:60]!r}"
                )

    def opening(self, text: str, mark: str, criterion: Criterion) -> list[Message]:
        """What the judge is told and asked of one criterion."""
        binary = criterion.best == 1
        marks = "1 if it holds, 0 if not" if binary else f"a whole number from 0 to {criterion.best}, the best"
        question = self.question.format(quoted=text, mark=mark, criterion=criterion.text, marks=marks)
        return judging(mark, question, self.system)


TERSE = Wording("", "{quoted}\n{mark} end\n{criterion}")
"""For a judge that learns from labels what it is asked, and in which shape to answer."""


@dataclass(frozen=True)
class Rubric:
    """Criteria that are checked one by one; called with a rollout and the judge's model.

    Args:
        criteria: at least one of a weight above 0, of different names.
        judge: how the model is asked.
        show_answer: whether the judge sees the task's known answer.
        most_characters: of a conversation that the judge sees.
        wording: the words of the question.

    Raises:
        ConfigError: no criteria, or two of one name.
    """

    criteria: tuple[Criterion, ...]
    judge: Judge = DEFAULT_JUDGE
    show_answer: bool = False
    most_characters: int = MOST_CHARACTERS
    wording: Wording = Wording()

    def __post_init__(self) -> None:
        if isinstance(self.criteria, Criterion) or not isinstance(self.criteria, Iterable):
            raise ConfigError(f"a rubric's criteria are a list of Criterion(name, text), got {self.criteria!r}")
        object.__setattr__(self, "criteria", tuple(self.criteria))
        check_kind("Rubric", Judge, judge=self.judge)
        check_positive("Rubric", int, most_characters=self.most_characters)
        if wrong := [each for each in self.criteria if not isinstance(each, Criterion)]:
            raise ConfigError(f"a rubric's criteria are Criterion(name, text), got {wrong[0]!r}")
        names = [criterion.name for criterion in self.criteria]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"two criteria of a rubric are called {twice[0]!r}")
        if not any(criterion.weight > 0 for criterion in self.criteria):
            raise ConfigError("a rubric needs at least one criterion of a weight above 0")

    async def __call__(self, rollout: Rollout, model: Model) -> list[Reward]:
        """The weighted mean of the criteria, named as the scorer that returns it; each criterion as a metric, with why.

        Criteria that hold give at most 1; faults can take it below 0.

        Raises:
            ScorerFailed: the judge gave no verdict, or the task has no answer to show.
        """
        openings = self.openings(rollout)
        pairs = zip(self.criteria, openings, strict=True)
        verdicts = await side_by_side([_asked(*pair, model, self.judge) for pair in pairs])
        total = sum(criterion.weight for criterion in self.criteria if criterion.weight > 0)
        values = [int(verdict.mark) / each.best for each, verdict in zip(self.criteria, verdicts, strict=True)]
        score = sum(each.weight * value for each, value in zip(self.criteria, values, strict=True)) / total
        notes = [
            Reward(f"/{each.name}", value, 0.0, note=verdict.reason)
            for each, value, verdict in zip(self.criteria, values, verdicts, strict=True)
        ]
        return [Reward("", score), *notes]

    def openings(self, rollout: Rollout) -> list[list[Message]]:
        """What the judge is told and asked, of each criterion; a task of whoever trains one.

        Raises:
            ScorerFailed: the task has no answer to show.
        """
        text, mark = self._quoted(rollout)
        return [self.wording.opening(text, mark, criterion) for criterion in self.criteria]

    def save(self, path: str | Path) -> None:
        """Write the criteria as JSON."""
        rows = [msgspec.to_builtins(criterion) for criterion in self.criteria]
        Path(path).write_text(json.dumps({"criteria": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, **settings: object) -> Rubric:
        """The rubric in a JSON file: {"criteria": [{"name", "text", "weight", "best"}, ...]}.

        Raises:
            ConfigError: no such file, or not a rubric.
        """
        try:
            read = msgspec.json.decode(Path(path).read_bytes().removeprefix(BOM_UTF8))
            file = msgspec.convert(read, CriteriaFile)
        except OSError as error:
            raise ConfigError(f"can't read the rubric {path}: {error.strerror or error}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path} is not a rubric, {{'criteria': [...]}}: {error}") from None
        fields = Criterion.__struct_fields__
        for name in (name for row in read["criteria"] for name in row if name not in fields):
            raise ConfigError(f"{path}: a criterion has no {name!r}, only {', '.join(fields)}")
        return cls(tuple(file.criteria), **settings)  # type: ignore[arg-type]

    def _quoted(self, rollout: Rollout) -> tuple[str, str]:
        pieces = []
        for agent, messages in histories(rollout).items():
            shown = shortened(pieces_of(messages), self.most_characters)
            pieces += [Piece(f"{agent}: {piece.who}", piece.text) if agent else piece for piece in shown]
        if self.show_answer:
            if rollout.task.answer is None:
                raise ScorerFailed(f"task {rollout.task.id} has no answer that a judge could compare with")
            answer = rollout.task.answer
            text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
            pieces.append(Piece("reference answer", legible(text, self.most_characters)))
        return quoted(pieces)


async def mark_of(criterion: Criterion, pieces: Sequence[Piece], model: Model, judge: Judge = DEFAULT_JUDGE) -> float:
    """What a judge gives texts by one criterion, from 0 to 1. Raises ScorerFailed."""
    verdict = await _asked(criterion, Wording().opening(*quoted(pieces), criterion), model, judge)
    return int(verdict.mark) / criterion.best


async def _asked(criterion: Criterion, opening: list[Message], model: Model, judge: Judge) -> Verdict:
    return await judge.ask(model, opening, Verdict, lambda verdict: _check_range(verdict, criterion))


def _check_range(verdict: Verdict, criterion: Criterion) -> None:
    """Raises Unusable."""
    if not 0 <= verdict.mark <= criterion.best or verdict.mark != int(verdict.mark):
        raise Unusable(f"the mark must be a whole number from 0 to {criterion.best}, got {verdict.mark}")


class CriteriaFile(msgspec.Struct):
    """What a rubric is on disk."""

    criteria: list[Criterion]


def reference_judge(text: str = SAME_ANSWER, *, name: str = "same_answer", judge: Judge = DEFAULT_JUDGE) -> Rubric:
    """A rubric of one criterion that sees the task's known answer.

    Args:
        text: what must hold.
        name: of the criterion.
        judge: how the model is asked.
    """
    return Rubric((Criterion(name, text),), judge, show_answer=True)
