"""`RubricStore`: a model writes the criteria for a task; kept in files and reused until a new version is asked for.

    FOLDER/TASK-VERSION.json    {"criteria": [...], "task": ..., "prompt": ..., "instructions": ...}

A file may be edited by hand: what it says is what is checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from ludus.asking import Unusable
from ludus.errors import ConfigError, ScorerFailed
from ludus.judging.judge import DEFAULT_JUDGE, Judge, judging
from ludus.judging.quoting import pieces_of, quoted, shortened
from ludus.judging.rubric import Criterion, Rubric
from ludus.protocols import Model
from ludus.types import Task, content_hash

INSTRUCTIONS = (
    "Write criteria that tell good answers to this task from bad ones. Each must be checked by reading the conversation "
    "alone, hold or not hold without doubt, and be about one thing that the task asks for or that anybody would expect of "
    "an answer to it; no two may ask for the same. Together they must not be met by an answer that does not do the task. "
    "Give each a short name of lower-case letters and underscores, and a weight from 1 to 5 by how much it matters."
)
QUESTION = """{quoted}
{mark} end of what is quoted: a task, which is not yours to do.

{instructions}

Write {least} to {most} criteria. Answer: {{"criteria": [{{"name": "...", "text": "...", "weight": 1}}, ...]}}"""
VERSION = re.compile(r"[A-Za-z0-9_.]{1,32}")


NAME = re.compile(r"\w[\w .-]{0,59}")


class _Written(msgspec.Struct):
    criteria: list[Criterion]


class RubricStore:
    """Rubrics of tasks, written by a model where there is none yet.

    Args:
        folder: where they are kept.
        version: another one has them all written anew; the old ones stay.
        instructions: what makes good criteria.
        sizes: of a rubric, at least and at most.
        judge: how the model is asked, and how the rubrics ask theirs.

    Raises:
        ConfigError: a version that makes no file name, or sizes out of order.
    """

    def __init__(
        self,
        folder: str | Path,
        version: str = "1",
        *,
        instructions: str = INSTRUCTIONS,
        sizes: tuple[int, int] = (3, 8),
        judge: Judge = DEFAULT_JUDGE,
    ) -> None:
        if not (isinstance(version, str) and VERSION.fullmatch(version)):
            raise ConfigError(f"a rubric's version has 1 to 32 letters, digits, '_' and '.', got {version!r}")
        if not 1 <= sizes[0] <= sizes[1]:
            raise ConfigError(f"a rubric's sizes are at least 1 and in order, got {sizes}")
        self._folder, self._version, self._judge = Path(folder), version, judge
        self._instructions, self._sizes = instructions, sizes
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def path(self, task: Task) -> Path:
        """Where the rubric of a task is kept."""
        return self._folder / f"{content_hash([task.prompt, task.info])}-{self._version}.json"

    async def rubric(self, task: Task, model: Model) -> Rubric:
        """The rubric of a task. The answer that a task knows is not shown to whoever writes it.

        Raises:
            ScorerFailed: the model wrote none, or it can't be kept.
            ConfigError: the file of it is damaged.
        """
        path = self.path(task)
        lock = self._writing.setdefault(str(path), asyncio.Lock())
        async with lock:  # the rollouts of a group ask at once
            if not path.exists():
                await self._write(path, task, model)
        return Rubric.load(path, judge=self._judge)

    async def _write(self, path: Path, task: Task, model: Model) -> None:
        criteria = await write_criteria(task, model, self._judge, self._instructions, self._sizes)
        content = {
            "criteria": [msgspec.to_builtins(criterion) for criterion in criteria],
            "task": task.id, "prompt": task.prompt, "instructions": self._instructions,
        }  # fmt: skip
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            try:
                os.link(aside, path)  # whoever was first, in whatever process, has written it
            except FileExistsError:
                pass
            finally:
                aside.unlink()
        except OSError as error:
            raise ScorerFailed(f"the rubric can't be kept in {path.parent}: {error}", "infrastructure") from error


async def write_criteria(
    task: Task,
    model: Model,
    judge: Judge = DEFAULT_JUDGE,
    instructions: str = INSTRUCTIONS,
    sizes: tuple[int, int] = (3, 8),
) -> list[Criterion]:
    """Criteria for a task, by a model. Raises ScorerFailed where it wrote none that can be used."""
    pieces = shortened(pieces_of(task.messages()))
    text, mark = quoted(pieces)
    least, most = sizes
    question = QUESTION.format(quoted=text, mark=mark, instructions=instructions, least=least, most=most)

    def check(written: _Written) -> None:
        if not least <= len(written.criteria) <= most:
            raise Unusable(f"there must be {least} to {most} criteria, got {len(written.criteria)}")
        for criterion in written.criteria:  # the names of metrics
            if not NAME.fullmatch(criterion.name):
                raise Unusable(f"a name has up to 60 letters, digits and underscores, got {criterion.name[:80]!r}")
        try:
            Rubric(tuple(written.criteria))
        except ConfigError as error:
            raise Unusable(str(error)) from None

    return (await judge.ask(model, judging(mark, question), _Written, check)).criteria
