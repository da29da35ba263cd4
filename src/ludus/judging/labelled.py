"""Replies with the truth about them, as people or products label them."""

from __future__ import annotations

import itertools
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ludus.errors import ConfigError
from ludus.types import Call, EnvironmentRef, Message, Rollout, Seeds, Task

GOOD = 0.5
"""From which a truth or a judge's value counts as good."""
WORDS = {"good": 1.0, "bad": 0.0, "accept": 1.0, "reject": 0.0, "accepted": 1.0, "rejected": 0.0}
LABELS = EnvironmentRef("labels")


@dataclass(frozen=True)
class Labelled:
    """A rollout and what is known about it."""

    rollout: Rollout
    truth: float
    good: bool

    @property
    def group(self) -> str:
        """Those of one group are compared with each other."""
        return self.rollout.group

    @property
    def length(self) -> int:
        """Characters of the last reply."""
        return len(self.rollout.reply)


def from_labels(path: str | Path, limit: int | None = None) -> list[Labelled]:
    """Labelled answers from a JSON-lines file.

    Each line has the fields of `Task` (`prompt`, `answer`, `info`), `reply` (a text) or `messages` (all that came after the
    prompt), and `label`: good or bad, true or false, accept or reject, or a number from 0 to 1. `tools` may name what was
    offered; lines with the same prompt are a group.

    Raises:
        ConfigError: no such file, nothing in it, or a line that can't be read, by number.
    """
    found: list[Labelled] = []
    try:
        with Path(path).open("rb") as lines:
            for number, line in enumerate(itertools.islice(lines, limit), 1):
                if line.strip():
                    line = line.removeprefix(BOM_UTF8) if number == 1 else line
                    found.append(_labelled(line, f"{path}, line {number}", number))
    except OSError as error:
        raise ConfigError(f"can't read the labels {path}: {error.strerror or error}") from None
    if not found:
        raise ConfigError(f"{path} has no labels")
    return found


def labelled(task: Task, reply: str, truth: float, number: int = 0) -> Labelled:
    """A reply that was labelled.

    Args:
        truth: from 0, bad, to 1, good.
        number: of the label; it is in the rollout's id.
    """
    return Labelled(_rollout(task, [{"role": "assistant", "content": reply}], [], number), truth, truth >= GOOD)


def _labelled(line: bytes, where: str, number: int) -> Labelled:
    """Raises ConfigError."""
    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: expected a JSON object: {error}") from None
    for field in ("label", "prompt"):
        if row.get(field) in (None, ""):
            there = [name for name in sorted(row) if row[name] not in (None, "")]
            raise ConfigError(f"{where}: it has no {field}, only {', '.join(there) or 'nothing'}")
    truth = _truth(row["label"], where)
    try:
        task = Task(**{name: row[name] for name in ("prompt", "answer", "info") if row.get(name) is not None})
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None
    said = list(_said(row, where))
    if row.get("tools") is not None and not _objects(row["tools"]):
        raise ConfigError(f"{where}: expected tools, a list of schemas, got {str(row['tools'])[:60]!r}")
    return Labelled(_rollout(task, said, row.get("tools") or [], number), truth, truth >= GOOD)


def _truth(label: Any, where: str) -> float:
    value = WORDS.get(label.strip().casefold()) if isinstance(label, str) else label
    if not isinstance(value, int | float) or not 0 <= value <= 1:  # which nan is not
        raise ConfigError(
            f"{where}: a label is good, bad, true, false, or a number from 0 to 1, got {repr(label)[:60]}"
        )
    return float(value)


def _said(row: Mapping[str, Any], where: str) -> Iterator[Message]:
    """Everything after the prompt, which has a reply in it."""
    if row.get("reply") is not None and row.get("messages") is not None:
        raise ConfigError(f"{where}: it has both reply and messages: which of them is meant?")
    if isinstance(row.get("reply"), str):
        yield {"role": "assistant", "content": row["reply"]}
        return
    messages = row.get("messages")
    valid = isinstance(messages, list) and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages)
    if not valid or not any(message["role"] == "assistant" for message in messages or ()):
        raise ConfigError(f"{where}: expected reply, a text, or messages with a reply among them")
    for message in messages or ():
        if problem := _malformed(message):
            raise ConfigError(f"{where}: a message of the role {message['role']!r}: {problem}")
        yield message


def _malformed(message: Message) -> str:
    """What a judge could not be shown of a message, "" for nothing."""
    content, calls = message.get("content"), message.get("tool_calls")
    if not (content is None or isinstance(content, str) or _objects(content)):
        return f"expected content, a text or a list of parts, got {str(content)[:60]!r}"
    if not (calls is None or (_objects(calls) and all(isinstance(call.get("function"), dict) for call in calls))):
        return f"expected tool_calls, a list of objects with a function each, got {str(calls)[:60]!r}"
    return ""


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _rollout(task: Task, said: list[Message], tools: list[dict[str, Any]], number: int) -> Rollout:
    last = max(i for i, message in enumerate(said) if message["role"] == "assistant")
    call = Call(messages=[*task.messages(), *said[:last]], reply=said[last])
    return Rollout(
        id=f"label-{number}", group=task.content_key(), environment=LABELS, task=task, seeds=Seeds(0, 0, number, 0),
        tools=tools, calls=[call], epilogue=said[last + 1 :], stop="done",
    )  # fmt: skip
