"""`VerifiersEnvironment`: environments written for verifiers, as they are: `verifiers:MODULE`.

Their code runs in processes of its own, in this Python or in another one (`install`, `python`). Their loop talks to the
rollout's own model, so every token is recorded; their rubric scores. Left out: rows that are no JSON, such as images.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ludus.authoring.context import Context
from ludus.authoring.declare import ScorerMark, reward
from ludus.authoring.environment import Environment
from ludus.environments.verifiers import venv
from ludus.environments.verifiers.blame import ProcessDied
from ludus.environments.verifiers.calls import Recorded
from ludus.environments.verifiers.pool import Pool, score
from ludus.environments.verifiers.process import Process
from ludus.errors import ConfigError, RolloutError, UsageError
from ludus.types import MAIN_ROLE, Reward, Rollout, Task, content_hash

log = logging.getLogger(__name__)

PAGE = 500
"""Rows that are fetched at a time."""


Score = tuple[str, float, float] | tuple[str, float, float, str]
"""A name, a value, a weight, and a role where it is not the main one."""


class Played(NamedTuple):
    """A rollout, and what its rubric said; None where that compares the rollouts of a group, which wait in a process."""

    process: Process
    state: str
    scores: list[Score] | None


class VerifiersEnvironment(Environment):
    """An environment of the verifiers library, v0 (`load_environment`) or v1 (`Taskset`)."""

    version = "1"
    isolated = True

    def __init__(
        self,
        module: str,
        install: str = "",
        python: str = "",
        folder: str = "",
        processes: int = 1,
        hold_out: float = 0.0,
        reward_errors: Literal["fail", "zero"] = "fail",
        load_s: float = 900.0,
        stall_s: float = 60.0,
        args: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            module: what verifiers calls it: the name of its module.
            install: what pip installs in a virtual environment made for it: requirements, wheels, folders.
            python: an interpreter that has it, instead.
            folder: where its module is, if it is not installed.
            processes: that play its rollouts.
            hold_out: share of its rows that are for testing, where it has no evaluation data itself.
            reward_errors: a reward function that raises fails the rollout, or counts as 0, as in verifiers.
            load_s: seconds that loading may take.
            stall_s: seconds for which its code may hold up the other rollouts of its process.
            args: options whose names are taken here.
            **options: arguments of its `load_environment`; of v1, fields of its taskset's configuration.
        """
        _check(install, python, folder, processes, hold_out, reward_errors)
        self._python = python or (venv.python_with(install) if install else sys.executable)
        self._load = {
            "module": module, "folder": str(Path(folder).resolve()) if folder else "",
            "options": {**options, **(args or {})}, "strict": reward_errors == "fail",
        }  # fmt: skip
        self._limits = load_s, stall_s
        self._processes, self._hold_out = processes, hold_out
        self._module = module
        self._pool: Pool | None = None
        self._reader: Process | None = None
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._whole: set[str] = set()
        self._kept: dict[str, dict[str, Played]] = {}
        about = self._reading().about
        self.version = about["versions"]
        self.sampling = about["sampling"]
        self.roles = (MAIN_ROLE, *about["others"])
        self._together: bool = about["together"]
        self._has_test: bool = about["held_out"]
        if not (self._has_test or hold_out):
            log.warning("verifiers:%s has no data for testing: both splits are its training data (hold_out)", module)

    # --- tasks ----------------------------------------------------------------------------------------------------

    def tasks(self, split: str) -> Iterator[Task]:
        """Its training or evaluation data; where it has none of the latter, the training data or a part held out."""
        source = "test" if split == "test" and self._has_test else "train"
        for row in self._read(source):
            key = content_hash(row)
            held = int(key, 16) % 10_000 < self._hold_out * 10_000
            if self._has_test or not self._hold_out or held == (split == "test"):
                info: dict[str, Any] = {name: row[name] for name in ("row", "data") if name in row}
                yield Task(prompt=row["prompt"], answer=row["answer"], info=info, id=f"{self._module}-{key}")

    def _read(self, source: str) -> Iterator[dict[str, Any]]:
        """All rows, fetched page by page and once."""
        rows = self._rows.setdefault(source, [])
        at = 0
        while True:
            while at < len(rows):
                yield rows[at]
                at += 1
            if source in self._whole:
                return
            try:
                page = self._reading().ask_now("tasks", self._limits[0], split=source, start=len(rows), count=PAGE)
            except (ProcessDied, RolloutError, TimeoutError) as error:
                self._stop_reading()
                raise UsageError(f"verifiers:{self._module} can't say its tasks: {error}") from None
            rows += page
            if len(page) < PAGE:
                self._whole.add(source)

    def _reading(self) -> Process:
        """A process to be asked in turn."""
        if self._reader is None:
            self._reader = self._make()
            self._reader.load_now()
            self._finalizer = weakref.finalize(self, Process.kill, self._reader)
        return self._reader

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._finalizer.detach()
            self._reader.kill()
            self._reader = None

    def _make(self) -> Process:
        return Process(self._python, self._load, *self._limits)

    # --- rollouts -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the processes; the one that said what the tasks are becomes the first."""
        first, self._reader = self._reader, None
        if first is not None:
            self._finalizer.detach()
        self._pool = Pool(self._make, self._processes, self._together, first)
        await self._pool.start()

    async def close(self) -> None:
        """End them."""
        pool, self._pool = self._pool, None
        self._kept.clear()
        if pool is not None:
            await pool.close()

    async def run(self, ctx: Context) -> None:
        """Its own loop, in a process, with the rollout's own model."""
        assert self._pool is not None  # the scheduler opens what it plays
        row = ctx.task.info.get("row")
        if row is None:
            raise RolloutError("this task is not one of the environment's: it has no row")
        models = {role: ctx.models[role] for role in self.roles}
        recorded = {role: model for role, model in models.items() if isinstance(model, Recorded)}
        if len(recorded) < len(models):
            raise RolloutError("this model is recorded in another process", blame="infrastructure")
        addresses = {role: (model.base_url, model.api_key) for role, model in models.items()}
        process, state, played = await self._pool.play(ctx.task.id, recorded, row=row, addresses=addresses)
        ctx.state = Played(process, state, played["scores"])
        ctx.stop, ctx.messages = played["stop"], played["messages"]

    async def teardown(self, ctx: Context) -> None:
        """What was not scored is not needed any more, unless its group is still to be."""
        waiting = ctx.rollout is not None and ctx.rollout.id in self._kept.get(ctx.rollout.group, {})
        if isinstance(ctx.state, Played) and not waiting:
            ctx.state.process.tell("forget", states=[ctx.state.state])

    @reward(name="verifiers")
    async def scores(self, state: Played, rollout: Rollout) -> list[Reward]:
        """What its rubric says; nothing yet where it compares the rollouts of a group."""
        if state.scores is None:
            self._kept.setdefault(rollout.group, {})[rollout.id] = state
            return []
        return _rewards(state.scores)

    @reward(name="verifiers")
    async def compared(self, group: Sequence[Rollout]) -> list[list[Reward]]:
        """What its rubric says of a group."""
        kept = self._kept.pop(group[0].group, {})
        if not kept:
            return [[] for _ in group]
        scores = await score([kept[rollout.id][:2] for rollout in group])
        return [_rewards(each) for each in scores]

    def group_scorers(self) -> list[tuple[Any, ScorerMark]]:
        """Only where its rubric compares rollouts."""
        return super().group_scorers() if self._together else []


def _rewards(scores: Sequence[Score]) -> list[Reward]:
    return [Reward(*score) for score in scores]


def _check(install: str, python: str, folder: str, processes: int, hold_out: float, reward_errors: str) -> None:
    problem = (
        "install and python exclude each other: the one makes a Python, the other names it" if install and python else
        f"python = {python!r} is no file" if python and not Path(python).is_file() else
        f"folder = {folder!r} is no folder" if folder and not Path(folder).is_dir() else
        f"processes must be a whole number of at least 1, got {processes!r}"
        if not isinstance(processes, int) or processes < 1 else
        f"hold_out must be at least 0 and less than 1, got {hold_out!r}" if not 0 <= hold_out < 1 else
        f"reward_errors must be 'fail' or 'zero', got {reward_errors!r}" if reward_errors not in ("fail", "zero") else
        ""
    )  # fmt: skip
    if problem:
        raise ConfigError(problem)
