"""Which rollouts become training data, and why the others do not: pure functions, but for what has been kept so far."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ludus.environments.reasoning.text import answer_given
from ludus.programs.data.similar import Similar
from ludus.types import MAIN_ROLE, Message, Rollout, Task, content_hash

REASONS = {
    "failed": "the rollout failed",
    "cut off": "a reply hit its token limit",
    "nothing said": "the model said nothing",
    "held out": "its prompt is a task of the held-out split",
    "label": "it was labelled bad",
    "reward": "the reward is below the limit",
    "agreement": "too few samples of the task give this answer",
    "worse sample": "another sample of the task was taken",
    "duplicate": "the same conversation is there already",
    "novelty": "it is too similar to one that is there already",
}
"""Why a rollout is left out, in the order in which that is looked at."""


@dataclass(frozen=True)
class Sample:
    """What is kept of a rollout to decide about it."""

    rollout: str
    """Its id."""
    task: str
    reward: float
    tokens: int
    answer: str
    fault: str = ""
    """What is wrong with it by itself, one of `REASONS`."""
    agreement: float = 1.0
    """Share of the task's rollouts that give this answer."""


def sample_of(rollout: Rollout, held_out: frozenset[str], min_reward: float, label: float | None = None) -> Sample:
    """A rollout as the filters see it.

    Args:
        held_out: keys of prompts that must not be taken.
        min_reward: the least reward that is taken.
        label: 1 or 0 where somebody said that it is good or bad, which then counts in place of the reward.
    """
    talk = conversation(rollout)
    reward = rollout.reward if label is None else label
    fault = (
        "failed" if rollout.failure is not None else
        "cut off" if rollout.truncated else
        "nothing said" if not any(said(message) for message in talk if message["role"] == "assistant") else
        "held out" if prompt_key(rollout.task) in held_out else
        "label" if label == 0 else
        "reward" if label is None and reward < min_reward else
        ""
    )  # fmt: skip
    tokens = rollout.usage.completion_tokens
    return Sample(rollout.id, rollout.task.id, reward, tokens, answer_given(rollout), fault)


def agreeing(samples: Iterable[Sample]) -> list[Sample]:
    """The samples with their agreement; failed ones have no say."""
    samples = list(samples)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        if sample.fault != "failed":
            answers[sample.task][sample.answer] += 1
    return [
        Sample(
            sample.rollout, sample.task, sample.reward, sample.tokens, sample.answer, sample.fault,
            answers[sample.task][sample.answer] / max(1, answers[sample.task].total()),
        )
        for sample in samples
    ]  # fmt: skip


def ranked(samples: Sequence[Sample], min_agreement: float, per_task: int) -> tuple[list[Sample], Counter[str]]:
    """The best samples of each task, in the order of the tasks, and how many were left out for which reason.

    The best have the most reward, then agree with the most others, then are the shortest.
    """
    left_out: Counter[str] = Counter()
    of_task: dict[str, list[Sample]] = {}
    for sample in samples:
        fault = sample.fault or ("agreement" if sample.agreement < min_agreement else "")
        if fault:
            left_out[fault] += 1
        else:
            of_task.setdefault(sample.task, []).append(sample)
    chosen: list[Sample] = []
    for own in of_task.values():
        own.sort(key=lambda sample: (-sample.reward, -sample.agreement, sample.tokens, sample.rollout))
        chosen += own[:per_task]
        left_out["worse sample"] += len(own) - len(own[:per_task])
    return chosen, left_out


class Novelty:
    """Lets through what is new: no conversation twice, and none too similar to one before.

    Args:
        least: 1 - the similarity to the nearest, from which one is new; 0 lets everything through but the very same.
    """

    def __init__(self, least: float) -> None:
        self._least, self._hashes, self._similar = least, set[str](), Similar()

    def fault(self, talk: Sequence[Message]) -> str:
        """Why a conversation is not let through, one of `REASONS`; "" where it is, and kept in mind."""
        text = "\n".join(said(message) for message in talk if message["role"] in ("user", "assistant"))
        key = content_hash(" ".join(text.casefold().split()).encode(errors="replace").decode())
        if key in self._hashes:
            return "duplicate"
        if self._least > 0:
            if 1 - self._similar.nearest(text) < self._least:
                return "novelty"
            self._similar.add(text)
        self._hashes.add(key)
        return ""


def conversation(rollout: Rollout) -> list[Message]:
    """What the model saw and said, up to its last reply."""
    return rollout.conversation(MAIN_ROLE)


def said(message: Mapping[str, Any]) -> str:
    """Text and tool calls of a message."""
    content = message.get("content") or ""
    calls = [tool.get("function") or {} for tool in message.get("tool_calls") or ()]
    return "\n".join([content if isinstance(content, str) else str(content), *map(str, calls)]).strip()


def prompt_key(task: Task) -> str:
    """Equal for tasks whose prompts are the same up to case and white space."""
    text = "\n".join(said(message) for message in task.messages())
    return " ".join(text.casefold().split())
