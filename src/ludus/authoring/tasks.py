"""Tasks from files, data sets and whatever `Environment.tasks` returns."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ludus.authoring.environment import Environment
from ludus.errors import ConfigError, UnknownName
from ludus.types import Task

MOST_TASKS = 100_000
"""As many tasks of a split as programs ever hold; endless generators are cut here."""


def from_jsonl(path: str | Path) -> Iterator[Task]:
    """Tasks from a JSON-lines file with the fields of `Task`; other fields go into `info`.

    Raises:
        ConfigError: naming file and line, for what is not JSON or has no prompt.
    """
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line, type=dict[str, Any])
                yield from_row(row)
            except (msgspec.MsgspecError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}, line {number}: expected a JSON object with a prompt: {error}") from None


def from_dataset(
    rows: Iterable[Mapping[str, Any]], to_task: Callable[[Mapping[str, Any]], Task] | None = None
) -> Iterator[Task]:
    """Tasks from any iterable of rows, such as a Hugging Face `datasets.Dataset`.

    Args:
        rows: mappings; by default with the fields of `Task` (`question` is taken for `prompt`).
        to_task: makes a task of a row, where the fields are others.
    """
    for row in rows:
        yield to_task(row) if to_task else from_row(row)


def from_row(row: Mapping[str, Any]) -> Task:
    """A task from one row. Raises KeyError without a prompt."""
    fields = dict(row)
    if "prompt" not in fields and "question" in fields:
        fields["prompt"] = fields.pop("question")
    known = {name: fields.pop(name) for name in ("prompt", "answer", "id") if fields.get(name) is not None}
    info = {**(fields.pop("info", None) or {}), **{k: v for k, v in fields.items() if k not in ("answer", "id")}}
    if "id" in known:
        known["id"] = str(known["id"])
    return Task(**known, info=info) if "prompt" in known else _no_prompt(row)


def _no_prompt(row: Mapping[str, Any]) -> Task:
    raise KeyError(f"no prompt among {sorted(row)}")


def take(
    env: Environment, split: str, limit: int | None = None, *, least: int = 0, seconds: float = math.inf
) -> list[Task]:
    """The first tasks of a split; one that comes again, as generators that draw at random may give it, counts once.

    Args:
        limit: as many as there may be.
        least: as many as there have to be before it stops for time.
        seconds: after which it stops, where tasks are slow to make.

    Raises:
        UnknownName: the environment has no such split.
        ConfigError: it has no tasks, returned something else than tasks, or gave two of them one id.
    """
    if split not in env.splits:
        raise UnknownName(f"split of {env.describe().id}", split, env.splits)
    tasks: dict[str, Task] = {}
    until = time.monotonic() + seconds
    for task in itertools.islice(env.tasks(split), MOST_TASKS):
        if not isinstance(task, Task):
            raise ConfigError(
                f"{env.describe().id}: tasks({split!r}) gave a {type(task).__name__}, expected ludus.Task"
            )
        if tasks.setdefault(task.id, task) != task:
            raise ConfigError(f"{env.describe().id}: two different tasks of {split!r} have the id {task.id!r}")
        if len(tasks) == limit or (len(tasks) >= least and time.monotonic() > until):
            break
    if not tasks:
        raise ConfigError(f"{env.describe().id} has no tasks in the split {split!r}")
    return list(tasks.values())
