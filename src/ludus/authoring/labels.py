"""Labels: what people, or the signals of a product, say of rollouts. Good or bad, and why.

The same few fields serve three uses: truth that judges are tested against, criteria for a rubric, and rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import msgspec

from ludus.errors import UsageError
from ludus.types import Message, Task

Verdict = Literal["good", "bad"]
PERSON, SIGNAL = "person", "signal"
_GOOD = frozenset({"good", "accept", "accepted", "up", "thumbs_up", "thumbsup", "like", "liked", "positive", "pass"})
_BAD = frozenset(
    {"bad", "reject", "rejected", "down", "thumbs_down", "thumbsdown", "dislike", "disliked", "negative", "fail"}
)
_FIELDS = ("verdict", "label", "feedback", "accepted", "accept", "signal", "thumbs", "rating")
"""Under which products keep such signals."""


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One verdict on one rollout."""

    rollout: str
    """The rollout's id."""
    verdict: Verdict
    why: str = ""
    task: str = ""
    by: str = ""
    """Who says so: a person's name, or that of a product."""
    source: Literal["person", "signal"] = "person"
    time: float = 0.0
    """Seconds since the epoch."""

    @property
    def reward(self) -> float:
        """1 for good, 0 for bad."""
        return float(self.verdict == "good")


def signal_of(row: Mapping[str, Any]) -> Verdict | None:
    """What a product's record says, whatever it calls it; None where it says nothing that is sure.

    >>> signal_of({"accepted": True}), signal_of({"feedback": "thumbs_down"}), signal_of({"rating": 3})
    ('good', 'bad', None)
    """
    for name in _FIELDS:
        value = row.get(name)
        if isinstance(value, Mapping):
            value = next((value[key] for key in ("value", "type", *_FIELDS) if key in value), None)
        if name in ("accepted", "accept") and isinstance(value, int) and value == 0:
            return "bad"  # as databases write what is true or false; a rating of 0 says nothing
        if isinstance(value, bool) or (value in (1, -1) and isinstance(value, int)):
            return "good" if value > 0 else "bad"
        if isinstance(value, str):
            word = value.strip().casefold().replace(" ", "_").replace("-", "_")
            if word in _GOOD | _BAD:
                return "good" if word in _GOOD else "bad"
    return None


def has_signal(row: Mapping[str, Any]) -> bool:
    """Whether a product's record has a signal at all, understood or not: a rating of 4, or of none that is known."""
    return any(row.get(name) not in (None, "", 0) for name in _FIELDS)


def read_signal(row: Mapping[str, Any]) -> Label:
    """A product's record as a label. Raises UsageError where it names no rollout, or says neither good nor bad."""
    rollout = row.get("rollout") or row.get("rollout_id") or row.get("id")
    verdict = signal_of(row)
    if not isinstance(rollout, str) or verdict is None:
        words = f"{' or '.join(get_args(Verdict))}, accepted = true or false"
        raise UsageError(f"expected a rollout and a verdict ({words}), got {str(dict(row))[:120]}")
    why = next((row[name] for name in ("why", "reason", "comment") if isinstance(row.get(name), str)), "")
    return Label(rollout=rollout, verdict=verdict, why=why, by=str(row.get("by") or ""), source="signal")


def judge_row(label: Label, task: Task, prompt: list[Message], said: list[Message]) -> dict[str, Any]:
    """A labelled conversation on its own, as judges are tested on it: a line of a file of labels.

    Args:
        label: the verdict.
        task: what the conversation was about.
        prompt: the conversation before the first reply.
        said: everything from there on.
    """
    about = {
        "answer": task.answer,
        "info": task.info,
        "label": label.verdict,
        "why": label.why,
        "rollout": label.rollout,
    }
    return {"prompt": prompt, "messages": said, **{name: value for name, value in about.items() if value}}


def newest(labels: Iterable[Label]) -> dict[str, Label]:
    """By rollout the last word: who labels again has thought better of it, and a person outweighs a signal."""
    found: dict[str, Label] = {}
    for label in labels:
        before = found.get(label.rollout)
        if before is None or label.source == PERSON or before.source == SIGNAL:
            found[label.rollout] = label
    return found
