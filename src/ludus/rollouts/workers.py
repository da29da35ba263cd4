"""`WorkerPool`: environments in processes of their own, so that author code can be killed and can use other cores.

A worker that dies takes its rollouts along. Each of them is then run again in a process of its own: the one at fault
dies there too and fails, the others go on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ludus.errors import ModelCallFailed, UsageError
from ludus.protocols import Model
from ludus.recording.recorder import Recorder
from ludus.rollouts import frames
from ludus.rollouts.attempt import Attempt
from ludus.rollouts.frames import Answer, Ask, Build, Done, FromWorker, Play, Ready
from ludus.types import MAIN_ROLE, EnvironmentRef, Failure, Rollout

log = logging.getLogger(__name__)

GRACE_S = 10.0
"""Beyond a rollout's own limit, after which its worker is killed."""
CLOSING_S = 10.0
"""For an idle worker to close its environment in."""


class WorkerDied(Exception):
    """A worker process ended while it ran a rollout."""


@dataclass
class Worker:
    """One process and the rollouts in it."""

    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    jobs: dict[int, tuple[Recorder, asyncio.Future[Rollout]]] = field(default_factory=dict)
    retired: bool = False
    """Gets no new rollouts, and ends with its last one: threads of a timed-out rollout may still run in it."""
    asks: set[asyncio.Task[None]] = field(default_factory=set)
    reading: asyncio.Task[None] | None = None


class WorkerPool:
    """Runs attempts in `size` worker processes.

    Args:
        environment: how a worker builds the environment.
        size: number of processes.
    """

    def __init__(self, environment: EnvironmentRef, size: int) -> None:
        self._environment, self._size = environment, size
        self._workers: list[Worker] = []
        self._numbers = itertools.count()
        self._picking, self._alone = asyncio.Lock(), asyncio.Lock()

    async def start(self) -> None:
        """Start the processes. Raises UsageError if a worker can't build the environment."""
        spawning = [asyncio.create_task(self._spawn()) for _ in range(self._size)]
        try:
            done, _ = await asyncio.wait(spawning, return_when=asyncio.FIRST_EXCEPTION)
            self._workers = [task.result() for task in done]
        except BaseException:
            await cancel_all(spawning)
            self._workers = [task.result() for task in spawning if not task.cancelled() and not task.exception()]
            await self.close()
            raise

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(self._end(worker) for worker in self._workers))
        self._workers = []

    async def play(
        self, attempt: Attempt, recorder: Recorder, models: Mapping[str, Model], timeout_s: float | None
    ) -> Rollout:
        """Run one attempt. Never raises for what goes wrong inside, the death of its process included."""
        began = time.time()
        try:
            return await self._play_in(await self._pick(), attempt, recorder, models, timeout_s)
        except WorkerDied:
            recorder.forget()
        async with self._alone:
            worker = await self._spawn()
            try:
                return await self._play_in(worker, attempt, recorder, models, timeout_s)
            except WorkerDied as error:
                return self._lost(attempt, recorder, error, began)
            finally:
                await self._end(worker)

    async def _pick(self) -> Worker:
        """The least busy worker; dead and retired ones are replaced."""
        async with self._picking:
            alive = [worker for worker in self._workers if not worker.retired]
            while len(alive) < self._size:
                alive.append(await self._spawn())
                self._workers.append(alive[-1])
            self._workers = [worker for worker in self._workers if worker in alive or worker.jobs]
            return min(alive, key=lambda worker: len(worker.jobs))

    async def _play_in(
        self, worker: Worker, attempt: Attempt, recorder: Recorder, models: Mapping[str, Model], timeout_s: float | None
    ) -> Rollout:
        job = next(self._numbers)
        future: asyncio.Future[Rollout] = asyncio.get_running_loop().create_future()
        worker.jobs[job] = recorder, future
        addresses = {
            role: (model.base_url, model.api_key, recorder.backends[role].name) for role, model in models.items()
        }
        frames.send(
            worker.writer,
            Play(job, attempt.task, attempt.seeds, attempt.split, attempt.purpose, timeout_s, addresses),
        )
        try:
            async with asyncio.timeout(None if timeout_s is None else timeout_s + GRACE_S):
                rollout = await future
        except TimeoutError:
            worker.process.kill()
            raise WorkerDied(
                f"it did not answer for {GRACE_S:.0f} s beyond the rollout's limit and was killed"
            ) from None
        finally:
            worker.jobs.pop(job, None)
        if rollout.failure is not None and rollout.failure.boundary == "timeout":
            worker.retired = True
        if worker.retired and not worker.jobs:
            await self._end(worker)
        rollout.sequences = [sequence for sequence in recorder.sequences if sequence.num_sampled]
        return rollout

    def _lost(self, attempt: Attempt, recorder: Recorder, error: WorkerDied, began: float) -> Rollout:
        return Rollout(
            id=attempt.id, group=attempt.group, environment=self._environment, task=attempt.task, split=attempt.split,
            seeds=attempt.seeds, purpose=attempt.purpose, model=recorder.backends[MAIN_ROLE].name, calls=recorder.calls,
            sequences=[s for s in recorder.sequences if s.num_sampled], stop="failed", started=began,
            failure=Failure("environment", "environment", f"the environment ended its process: {error}"),
        )  # fmt: skip

    async def _spawn(self) -> Worker:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "ludus.rollouts.worker", str(theirs.fileno()),
                    pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # an interrupt is for this process, which lets its workers finish
                )  # fmt: skip
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # and the worker ends with its line, if it began
            raise
        worker = Worker(process, writer)
        try:
            frames.send(writer, Build(self._environment))
            ready = await frames.receive(reader, FromWorker)
        except BaseException:
            worker.retired = True  # it may be busy building
            await self._end(worker)
            raise
        if not isinstance(ready, Ready) or ready.error:
            await self._end(worker)
            why = ready.error if isinstance(ready, Ready) else f"exit status {process.returncode}"
            raise UsageError(f"a worker process can't build {self._environment.id}: {why}")
        worker.reading = asyncio.create_task(self._read(worker, reader))
        return worker

    async def _read(self, worker: Worker, reader: asyncio.StreamReader) -> None:
        while (frame := await frames.receive(reader, FromWorker)) is not None:
            if isinstance(frame, Done) and frame.job in worker.jobs:
                worker.jobs[frame.job][1].set_result(frame.rollout)
            elif isinstance(frame, Ask) and frame.job in worker.jobs:
                task = asyncio.create_task(self._answer(worker, frame))
                worker.asks.add(task)
                task.add_done_callback(worker.asks.discard)
        status = await worker.process.wait()
        worker.retired = True
        await cancel_all(worker.asks)  # their attempts are over: what they sample belongs to no record any more
        for _, future in worker.jobs.values():
            if not future.done():
                future.set_exception(WorkerDied(f"exit status {status}"))

    async def _answer(self, worker: Worker, ask: Ask) -> None:
        recorder = worker.jobs[ask.job][0]
        if ask.adopt:
            recorder.adopt(ask.adopt)
        if ask.messages is None:
            frames.send(worker.writer, Answer(ask.ask, calls=recorder.calls))
            return
        try:
            reply = await recorder.call(ask.role, ask.messages, ask.tools, ask.sampling, agent=ask.agent)
        except ModelCallFailed as error:
            answer = Answer(ask.ask, error=str(error), blame=error.blame)
        except Exception as error:  # noqa: BLE001 - raised in the worker, where the agent asked
            answer = Answer(ask.ask, error=f"{type(error).__name__}: {error}", blame="environment")
        else:
            answer = Answer(ask.ask, reply=reply)
        if not worker.writer.is_closing():
            frames.send(worker.writer, answer)

    async def _end(self, worker: Worker) -> None:
        """An idle worker closes its environment first; whatever any of them started ends with it."""
        idle = not worker.retired and not worker.jobs
        worker.retired = True
        await cancel_all(worker.asks)
        worker.writer.close()
        if idle:
            with suppress(TimeoutError):
                await asyncio.wait_for(worker.process.wait(), CLOSING_S)
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)  # it leads a session of its own
        await worker.process.wait()
        if worker.reading is not None:
            await worker.reading


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait for it; whatever it raises now is of no interest any more."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
