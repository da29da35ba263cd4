"""Sample rollouts of a report: which tasks are shown, and a rollout as turns that a template can print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ludus.store import IndexRow, RolloutIndex
from ludus.types import Message, Rollout

MAX_COLUMNS = 3
MAX_CHARS = 4000
MAX_MESSAGES = 40


@dataclass(frozen=True)
class Bubble:
    """One message: who says it, the text, the thinking before it, and tool calls as (name, arguments)."""

    role: str
    text: str
    thinking: str = ""
    tools: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Sample:
    """One rollout as shown."""

    purpose: str
    rollout: Rollout
    bubbles: list[Bubble]


def choose_purposes(purposes: Sequence[str]) -> list[str]:
    """The evaluations to put side by side: at most three, first and last included. All of them, where none is one."""
    evaluations = [p for p in purposes if p.startswith("eval") and p != "eval:demonstrator"] or list(purposes)
    plain = [purpose for purpose in evaluations if "greedy" not in purpose] or evaluations
    if len(plain) <= MAX_COLUMNS:
        return plain
    middle = "eval:after_sft" if "eval:after_sft" in plain[1:-1] else plain[len(plain) // 2]
    return [plain[0], middle, plain[-1]]


def choose_samples(index: RolloutIndex, purposes: Sequence[str]) -> list[list[Sample]]:
    """Rollouts of the same tasks side by side, one row a task.

    Shown are the tasks whose first sample gained most, changed by the median, and lost most from the first purpose to
    the last; with one purpose: the best, the median and the worst. So nothing is picked by eye.
    """
    firsts = [
        _first_samples(index.query(purpose=purpose, last_attempts=True, order_by="sample")) for purpose in purposes
    ]
    if not firsts:
        return []
    shared = [task for task in firsts[0] if all(task in first for first in firsts)]
    before = firsts[0] if len(firsts) > 1 else {}
    change = {task: firsts[-1][task].reward - (before[task].reward if task in before else 0.0) for task in shared}
    ranked = sorted(shared, key=lambda task: (-change[task], task))
    picked = dict.fromkeys(ranked[i] for i in (0, len(ranked) // 2, -1)) if ranked else {}
    return [
        [
            _sample(purpose, index.get(first[task].id))
            for purpose, first in zip(purposes, firsts, strict=True)
        ]
        for task in picked
    ]  # fmt: skip


def bubbles_of(messages: Sequence[Message]) -> list[Bubble]:
    """Messages in OpenAI's format as bubbles; the middle of a very long conversation is left out, and said so."""
    bubbles = [_bubble(message) for message in messages]
    if len(bubbles) > MAX_MESSAGES:
        half, left_out = MAX_MESSAGES // 2, len(bubbles) - MAX_MESSAGES
        bubbles = [*bubbles[:half], Bubble("note", f"{left_out} messages left out"), *bubbles[-half:]]
    return bubbles


def _first_samples(rows: Sequence[IndexRow]) -> dict[str, IndexRow]:
    first: dict[str, IndexRow] = {}
    for row in rows:
        first.setdefault(row.task, row)
    return first


def _sample(purpose: str, rollout: Rollout) -> Sample:
    return Sample(purpose, rollout, bubbles_of(rollout.messages or rollout.task.messages()))


def _bubble(message: Message) -> Bubble:
    functions = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    return Bubble(
        role=str(message.get("role", "")),
        text=_cut(_text(message.get("content"))),
        thinking=_cut(_text(message.get("reasoning_content"))),
        tools=tuple((str(f.get("name", "")), _cut(str(f.get("arguments", "")))) for f in functions),
    )


def _text(content: Any) -> str:
    """Content is text, a list of parts, or null; parts without text are named by their type."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {"text": part} for part in content]
        return "\n".join(str(part.get("text", f"[{part.get('type', 'part')}]")) for part in parts)
    return str(content)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} … ({len(text) - MAX_CHARS} characters left out)"
