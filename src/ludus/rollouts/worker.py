"""A worker process, `python -m ludus.rollouts.worker FD`: environments run here; models and recording stay outside."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.authoring.subagents import check_name
from ludus.authoring.tools import schema_of
from ludus.errors import ModelCallFailed
from ludus.redaction import SECRETS
from ludus.rollouts import frames
from ludus.rollouts.attempt import Attempt, play
from ludus.rollouts.failure import mark_failed
from ludus.rollouts.frames import Answer, Ask, Build, Done, Play, Ready, ToWorker
from ludus.types import Call, Failure, Message, Reply
from ludus.types import Sequence as TokenSequence

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass
class Line:
    """The connection to the scheduler, and who waits for an answer."""

    writer: asyncio.StreamWriter
    waiting: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def ask(self, job: int, **what: Any) -> Answer:
        """Ask and wait. Raises ModelCallFailed as the scheduler's side did."""
        number = next(self.numbers)
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        try:
            frames.send(self.writer, Ask(number, job, **what))
            answer: Answer = await future
        finally:
            del self.waiting[number]
        if answer.error:
            raise ModelCallFailed(answer.error, answer.blame)
        return answer


@dataclass
class RemoteRecorder:
    """Stands for the recorder in the scheduler's process: what `attempt.play` needs of one."""

    line: Line
    job: int
    model_name: str
    calls: list[Call] = field(default_factory=list)
    sequences: list[TokenSequence] = field(default_factory=list)
    in_flight: int = 0

    @property
    def waiting(self) -> bool:
        """Whether a model call is under way."""
        return self.in_flight > 0

    async def settle(self) -> None:
        """Fetch what was recorded: programs may have called the address directly."""
        self.calls[:] = (await self.line.ask(self.job)).calls or []

    def bind(self, env: Environment, ctx: Any) -> None:
        """Nothing here speaks from inside the rollout."""


@dataclass
class RemoteModel:
    """A rollout's model in a worker: calls go to the scheduler's process."""

    recorder: RemoteRecorder
    role: str
    address: str
    api_key: str
    agent: str = ""

    @property
    def base_url(self) -> str:
        """The rollout's address, in the scheduler's process."""
        return f"{self.address.removesuffix('/v1')}/{self.agent}/v1" if self.agent else self.address

    @property
    def openai(self) -> AsyncOpenAI:
        """A client of the rollout's address."""
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self.base_url, api_key=self.api_key, max_retries=0, timeout=None)

    def subagent(self, name: str) -> RemoteModel:
        """See `ludus.protocols.Model.subagent`."""
        return replace(self, agent=check_name(name))

    async def adopt(self, name: str) -> None:
        """See `ludus.protocols.Model.adopt`."""
        await self.recorder.line.ask(self.recorder.job, adopt=name)

    async def calls(self) -> Sequence[Call]:
        """See `ludus.protocols.Model.calls`."""
        await self.recorder.settle()
        return self.recorder.calls

    async def chat(self, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any) -> Reply:
        """See `ludus.protocols.Model.chat`."""
        self.recorder.in_flight += 1
        try:
            answer = await self.recorder.line.ask(
                self.recorder.job, role=self.role, agent=self.agent, messages=list(messages),
                tools=[schema_of(tool) for tool in tools], sampling=sampling,
            )  # fmt: skip
        finally:
            self.recorder.in_flight -= 1
        assert answer.reply is not None  # no error means a reply
        return answer.reply


async def serve(descriptor: int) -> None:
    """Build the environment, then run what is asked for until the scheduler is gone."""
    SECRETS.learn(os.environ)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    line = Line(writer)
    first = await frames.receive(reader, ToWorker)
    if not isinstance(first, Build):
        return
    async with AsyncExitStack() as stack:
        try:
            env = load_environment(first.environment.id, first.environment.options)
            await stack.enter_async_context(env.opened())
        except BaseException as error:  # noqa: BLE001 - told to the scheduler, which falls back
            frames.send(writer, Ready(f"{type(error).__name__}: {error}"))
            await writer.drain()
            return
        frames.send(writer, Ready())
        await _follow(env, reader, line)


async def _follow(env: Environment, reader: asyncio.StreamReader, line: Line) -> None:
    """Play what is asked for."""
    running = set[asyncio.Task[None]]()
    while (frame := await frames.receive(reader, ToWorker)) is not None:
        if isinstance(frame, Play):
            task = asyncio.create_task(_play(env, frame, line))
            running.add(task)
            task.add_done_callback(running.discard)
        elif isinstance(frame, Answer) and frame.ask in line.waiting:
            line.waiting[frame.ask].set_result(frame)


async def _play(env: Environment, frame: Play, line: Line) -> None:
    recorder = RemoteRecorder(line, frame.job, next(iter(frame.addresses.values()))[2])
    models = {role: RemoteModel(recorder, role, url, key) for role, (url, key, _) in frame.addresses.items()}
    attempt = Attempt(frame.task, frame.seeds, frame.split, frame.purpose)
    rollout = await play(env, attempt, recorder, models, frame.timeout_s)
    try:
        frames.send(line.writer, Done(frame.job, rollout))
    except (ValueError, OverflowError) as error:  # half of a surrogate pair, an integer of more than 64 bits
        rollout.calls, rollout.epilogue, rollout.tools = [], [], []
        why = f"what was said can't leave its process: {type(error).__name__}: {error}"
        mark_failed(rollout, env, Failure("environment", "environment", why))
        frames.send(line.writer, Done(frame.job, rollout))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
    os._exit(0)  # author threads may hang; nothing here is left to flush
