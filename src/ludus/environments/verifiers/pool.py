"""`Pool`: the processes that play an environment's rollouts, replaced when they die.

All rollouts in a process go down with it. The one whose code ran as it died fails; the others are played again, in the
process that takes its place. Tasks that once brought a process down are played in one of their own from then on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ludus.environments.verifiers.blame import ProcessDied
from ludus.environments.verifiers.calls import Recorded
from ludus.environments.verifiers.process import Process
from ludus.errors import RolloutError, UsageError
from ludus.seeds import derive

MOST_DEATHS = 4
"""Processes that may die under a rollout before it is given up."""


class Pool:
    """Plays rollouts in `size` processes, and those of suspects in one more.

    Args:
        make: starts a process.
        size: how many.
        together: rollouts of one task have to be in one process.
        first: a process that is there already.
    """

    def __init__(self, make: Callable[[], Process], size: int, together: bool, first: Process | None) -> None:
        self._make, self._together = make, together
        self._slots: list[Process | None] = [first, *[None] * size]
        self._fresh = {0} if first is not None else set[int]()
        self._changing = [asyncio.Lock() for _ in self._slots]
        self._suspects: set[str] = set()
        self._names = itertools.count()

    async def start(self) -> None:
        """Start all processes. Raises UsageError if one can't load or open the environment."""
        await asyncio.gather(*(self._at(slot) for slot in range(len(self._slots) - 1)))

    async def close(self) -> None:
        """End all processes."""
        processes = [process for process in self._slots if process is not None]
        self._slots = [None] * len(self._slots)
        await asyncio.gather(*(process.end() for process in processes))

    async def play(
        self, task: str, models: Mapping[str, Recorded], **request: Any
    ) -> tuple[Process, str, dict[str, Any]]:
        """Run one rollout.

        Args:
            task: the id of its task.
            models: by role, answer its calls, and forget them before it is played again.
            **request: what to play.

        Returns:
            The process that keeps its state, the name of the state, and what was answered.

        Raises:
            RolloutError: with its boundary and blame.
        """
        death = ""
        for attempt in range(MOST_DEATHS):
            if attempt:
                for model in models.values():
                    model.forget()
            try:
                process = await self._at(self._slot_of(task))
            except UsageError as error:
                raise RolloutError(f"its process can't be replaced: {error}", blame="infrastructure") from None
            state = str(next(self._names))
            try:
                return process, state, await process.ask("play", models, state=state, **request)
            except ProcessDied as error:
                death = str(error)
                if error.guilty:
                    self._suspects.add(task)
                    raise RolloutError(death) from None
            except BaseException:
                process.tell("forget", states=[state])
                raise
        raise RolloutError(f"{MOST_DEATHS} processes died under it; the last: {death}", blame="infrastructure")

    def _slot_of(self, task: str) -> int:
        size = len(self._slots) - 1
        if task in self._suspects:
            return size
        if self._together:
            return derive(task) % size
        return min(range(size), key=lambda slot: process.num_waiting if (process := self._slots[slot]) else 0)

    async def _at(self, slot: int) -> Process:
        """The process of a slot, alive."""
        async with self._changing[slot]:
            process = self._slots[slot]
            if process is not None and process.died is None and slot not in self._fresh:
                return process
            if process is not None and process.died is not None:
                await process.end()
                process = None
            self._fresh.discard(slot)
            process = self._slots[slot] = process or self._make()
            try:
                await process.adopt()
            except BaseException:
                self._slots[slot] = None
                await process.end()
                raise
            return process


async def score(kept: Sequence[tuple[Process, str]]) -> list[list[tuple[str, float, float]]]:
    """Names, values and weights for each rollout, judged together. Raises RolloutError."""
    processes = {id(process): process for process, _ in kept}
    if len(processes) != 1:
        raise RolloutError("a process with rollouts of this group has died", blame="infrastructure")
    (process,) = processes.values()
    try:
        scores: list[list[tuple[str, float, float]]] = await process.ask("score", states=[state for _, state in kept])
    except ProcessDied as error:
        if error.guilty:
            raise RolloutError(str(error), "scorer") from None
        raise RolloutError(str(error), blame="infrastructure") from None
    return scores
