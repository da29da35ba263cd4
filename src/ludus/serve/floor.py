"""`Floor`: an open environment with its tasks, and the episodes that are being played on it."""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import AsyncExitStack
from typing import Any

from ludus.authoring.calling import call
from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.errors import UnknownName, UsageError
from ludus.recording.gateway import Gateway
from ludus.serve.episode import Episode, Turn
from ludus.types import Task


class Floor:
    """What both protocols serve; an async context manager.

    Args:
        env: to be played.
        split: whose tasks are played where a client names none; the first one by default.
        most: sessions at once.
    """

    def __init__(self, env: Environment, split: str = "", most: int = 256) -> None:
        if split and split not in env.splits:
            raise UnknownName(f"split of {env.describe().id}", split, env.splits)
        self.env, self.most = env, most
        self.split = split or ("train" if "train" in env.splits else env.splits[0])
        self._tasks: dict[str, asyncio.Task[list[Task]]] = {}
        self._episodes: set[Episode] = set()

    async def __aenter__(self) -> Floor:
        async with AsyncExitStack() as stack:
            self._gateway = Gateway()
            stack.push_async_callback(self._gateway.close)
            await stack.enter_async_context(self.env.opened())
            stack.push_async_callback(self._close_episodes)
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._open.aclose()

    @property
    def name(self) -> str:
        """The environment's, as a part of a path.

        >>> from ludus.environments.guess import Guess
        >>> Floor(Guess()).name
        'guess'
        """
        name = self.env.name or type(self.env).__name__
        return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-") or "environment"

    @property
    def about(self) -> str:
        """The first line of what the environment says about itself."""
        return (type(self.env).__doc__ or "").strip().partition("\n")[0]

    async def tasks(self, split: str) -> list[Task]:
        """The tasks of a split, listed when they are first asked for. Raises UsageError for another split."""
        if split not in self.env.splits:
            raise UnknownName(f"split of {self.name}", str(split), self.env.splits)
        if split not in self._tasks:
            self._tasks[split] = asyncio.create_task(call(take, self.env, split))
        return await asyncio.shield(self._tasks[split])

    async def task(self, split: str, which: Any = None, seed: int = 0) -> Task:
        """The task with an id or at a place; without either, the seed's. Raises UsageError."""
        tasks = await self.tasks(split)
        if which is None:
            return tasks[seed % len(tasks)]
        if type(which) is int and 0 <= which < len(tasks):
            return tasks[which]
        found = next((task for task in tasks if task.id == which), None)
        if found is None:
            raise UsageError(
                f"there is no task {which!r} in {split}: expected an id, or a place from 0 to {len(tasks) - 1}"
            )
        return found

    async def begin(self, task: Task, split: str, seed: int | None = None) -> tuple[Episode, Turn]:
        """A new episode and its first turn; without a seed, one that is drawn."""
        episode = Episode(self.env, self._gateway, task, split, secrets.randbits(31) if seed is None else seed)
        self._episodes.add(episode)
        try:
            return episode, await episode.start()
        except BaseException:
            await self.leave(episode)
            raise

    async def leave(self, episode: Episode) -> None:
        """End an episode, wherever it is."""
        try:
            await episode.close()
        finally:
            self._episodes.discard(episode)

    async def _close_episodes(self) -> None:
        for listing in self._tasks.values():
            listing.cancel()
        await asyncio.gather(*(self.leave(episode) for episode in list(self._episodes)), return_exceptions=True)
