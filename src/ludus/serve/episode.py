"""One rollout whose model sits at the other end of a wire.

The environment's own loop runs, whatever it is, with the real `ctx`, tools and scorers. Each call of a model becomes a
`Turn` that somebody else answers: trainers that own the loop can so use environments that own it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.authoring.environment import Environment
from ludus.errors import RolloutError, UsageError
from ludus.recording.backend import Backend
from ludus.recording.gateway import Gateway
from ludus.recording.recorder import Recorder
from ludus.recording.wire import canonical
from ludus.rollouts.attempt import Attempt
from ludus.rollouts.comparing import compare
from ludus.rollouts.scheduler import play_recorded
from ludus.types import Message, Reply, Rollout, Sampling, Seeds, Task

log = logging.getLogger(__name__)

PURPOSE = "serve"
LEAVING_S = 60.0
"""For an environment to clean up after an episode that was left."""


@dataclass(frozen=True)
class Turn:
    """What a model is asked, or what became of the rollout."""

    messages: list[Message]
    """What came after the role's last reply; where the conversation is another one, all of it."""
    continues: bool = True
    """Whether the conversation is the role's last one, continued."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """JSON schemas in OpenAI's format."""
    role: str = ""
    rollout: Rollout | None = None
    """The record, once the episode is over."""


@dataclass
class _Asked:
    role: str
    messages: list[Message]
    tools: list[dict[str, Any]]
    reply: asyncio.Future[Reply]


@dataclass
class _Wire:
    """A `MessageBackend` that hands each call on and waits for its reply."""

    role: str
    asked: asyncio.Queue[_Asked | None]
    name: str = "wire"

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """What comes back over the wire."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(_Asked(self.role, list(messages), list(tools), reply))
        return await reply


class Episode:
    """One attempt at one task, turn by turn.

    Args:
        env: is open.
        gateway: gives models their addresses.
        task: of `split`.
        seed: everything random in the episode is derived from it.
    """

    def __init__(self, env: Environment, gateway: Gateway, task: Task, split: str, seed: int) -> None:
        self._env, self._gateway = env, gateway
        self._attempt = Attempt(task, Seeds(run=seed, visit=0, sample=0, attempt=0), split, PURPOSE)
        self._asked: asyncio.Queue[_Asked | None] = asyncio.Queue()
        self._seen: dict[str, list[Message]] = {}
        self._open: _Asked | None = None
        self._playing: asyncio.Task[Rollout] | None = None

    @property
    def id(self) -> str:
        """The rollout's."""
        return self._attempt.id

    async def start(self) -> Turn:
        """Begin, and get the first turn. Raises RolloutError where it failed through no fault of the policy."""
        self._playing = asyncio.create_task(self._play())
        self._playing.add_done_callback(lambda _: self._asked.put_nowait(None))
        return await self._next()

    async def reply(self, reply: Reply) -> Turn:
        """Answer the turn, and get the next one.

        Raises:
            UsageError: nothing was asked.
            RolloutError: the rollout failed through no fault of the policy, so it has no reward.
        """
        asked, self._open = self._open, None
        if asked is None:
            raise UsageError("the episode waits for no reply: it is over, or still busy with the one before")
        self._seen[asked.role] = [*asked.messages, reply.message]
        if not asked.reply.done():  # the environment may have given up waiting
            asked.reply.set_result(reply)
        return await self._next()

    async def close(self) -> None:
        """Leave the episode; the environment cleans up after it."""
        if self._playing is None or self._playing.done():
            return
        self._playing.cancel()
        _, busy = await asyncio.wait([self._playing], timeout=LEAVING_S)
        if busy:
            log.warning("%s has not cleaned up %.0f s after an episode was left", self._env.describe().id, LEAVING_S)

    async def _next(self) -> Turn:
        assert self._playing is not None  # it has started
        while not self._playing.done():
            asked = await self._asked.get()
            if asked is not None and not asked.reply.done():
                self._open = asked
                return self._turn(asked)
        if self._playing.cancelled():
            raise UsageError("the episode was left")
        rollout = self._playing.result()
        if rollout.excluded and rollout.failure is not None:
            failure = rollout.failure
            text = f"the rollout failed at the {failure.boundary}, blame {failure.blame}: {failure.error}"
            raise RolloutError(text, failure.boundary, failure.blame)
        return Turn(rollout.epilogue, rollout=rollout)

    def _turn(self, asked: _Asked) -> Turn:
        seen = self._seen.get(asked.role, [])
        start = [canonical(message) for message in asked.messages[: len(seen)]]
        continues = bool(seen) and start == [canonical(message) for message in seen]
        return Turn(asked.messages[len(seen) :] if continues else asked.messages, continues, asked.tools, asked.role)

    async def _play(self) -> Rollout:
        env, attempt = self._env, self._attempt
        backends: dict[str, Backend] = {role: _Wire(role, self._asked) for role in env.roles}
        recorder = Recorder(backends, seed=attempt.seed("model"), session=attempt.id)
        rollout = await play_recorded(env, attempt, recorder, self._gateway, timeout_s=None)
        if rollout.failure is None:
            judges = Recorder(backends, seed=attempt.seed("group"), session=attempt.group)
            await compare(env, [rollout], judges, self._gateway, timeout_s=None)
        return rollout
