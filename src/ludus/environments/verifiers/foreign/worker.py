"""A process that holds one environment of somebody else's and plays any number of its rollouts at once.

It is asked over a socket: four bytes of length, then JSON. Every request has an id, and its answer the same. What is
printed here goes to a pipe that nobody depends on.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import mmap
import os
import signal
import socket
import threading
import time
from typing import Any

from . import finding
from .driving import JOB, Watch
from .speaking import Line, Speaker
from .trouble import Trouble, told

HEADER_BYTES = 4
TEARDOWN_S = 10.0


def main(descriptor: int, memory_descriptor: int) -> None:
    """Serve until the other side is gone."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    memory = mmap.mmap(memory_descriptor, mmap.PAGESIZE)
    asyncio.run(_serve(socket.socket(fileno=descriptor), memory))
    os._exit(0)  # threads of the environment may hang; nothing here is left to flush


def _end_with(parent: int) -> None:
    """A process whose loop hangs does not notice that nobody listens any more."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


async def _serve(line: socket.socket, memory: mmap.mmap) -> None:
    asyncio.get_running_loop().set_task_factory(Watch(memory))
    reader, writer = await asyncio.open_connection(sock=line)
    worker = Worker(writer)
    try:
        while True:
            size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
            await worker.take(json.loads(await reader.readexactly(size)))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        await worker.close()


class Worker:
    """One environment and the requests that are being answered."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._line = Line(self._send)
        self._side: Any = None
        self._running: dict[int, asyncio.Task[None]] = {}

    async def take(self, request: dict[str, Any]) -> None:
        """Answer at once what must come in order, let the rest run beside each other."""
        if request["do"] == "said":
            self._line.answered(request["call"], request["status"], request["body"])
            return
        number, do = request.pop("id"), request.pop("do")
        if do == "cancel":
            if (task := self._running.get(request["job"])) is not None:
                task.cancel()
        elif do in ("play", "score"):
            context = contextvars.copy_context()
            context.run(JOB.set, number)
            task = asyncio.get_running_loop().create_task(self._answer(number, do, request), context=context)
            self._running[number] = task
            task.add_done_callback(lambda _: self._running.pop(number, None))
        else:
            await self._answer(number, do, request)

    async def _answer(self, number: int, do: str, request: dict[str, Any]) -> None:
        try:
            text = json.dumps({"id": number, "answer": await getattr(self, do)(**request)})
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                text = json.dumps({"id": number, "answer": None})
            else:
                trouble = Trouble("it was cancelled by something inside it")
                text = json.dumps({"id": number, "error": told(trouble)})
        except SystemExit as error:
            trouble = Trouble(f"it called sys.exit({error.code!r})", "usage" if do == "load" else "rollout")
            text = json.dumps({"id": number, "error": told(trouble)})
        except BaseException as error:  # noqa: BLE001 - told to the other side, whatever it is
            text = json.dumps({"id": number, "error": told(error)})
        self._send(text)

    def _send(self, text: str) -> None:
        body = text.encode()
        if not self._writer.is_closing():
            self._writer.write(len(body).to_bytes(HEADER_BYTES, "big") + body)

    # --- requests -------------------------------------------------------------------------------------------------

    async def load(self, module: str, folder: str, options: dict[str, Any], strict: bool) -> dict[str, Any]:
        """Build the environment, and say what it is."""
        self._side = finding.load(module, folder, options, strict)
        for kind in (signal.SIGINT, signal.SIGTERM):  # v0 environments take these for themselves
            signal.signal(kind, signal.SIG_DFL)
        gc.freeze()  # what was imported lives as long as the process: nobody has to look at it again
        about: dict[str, Any] = self._side.about()
        return about

    async def open(self) -> None:
        """Start what rollouts share."""
        await self._side.open()

    async def tasks(self, split: str, start: int, count: int) -> list[dict[str, Any]]:
        """Rows `start` to `start + count` of a split; fewer at its end."""
        rows: list[dict[str, Any]] = self._side.tasks(split, start, count)
        return rows

    async def ping(self) -> None:
        """The loop turns."""

    async def play(self, state: str, row: dict[str, Any], addresses: dict[str, tuple[str, str]]) -> dict[str, Any]:
        """Run one rollout; what scoring needs of it is kept under the name `state`. `addresses` has address and key of each
        role, the main one first."""
        speakers = {role: Speaker(self._line, JOB.get(), role, url, key) for role, (url, key) in addresses.items()}
        played: dict[str, Any] = await self._side.play(state, row, speakers)
        return played

    async def score(self, states: list[str]) -> list[list[tuple[str, float, float]]]:
        """Names, values and weights, for each of the rollouts, which are judged together."""
        scores: list[list[tuple[str, float, float]]] = await self._side.score(states)
        return scores

    async def forget(self, states: list[str]) -> None:
        """Nobody will ask for these again."""
        for state in states:
            self._side.kept.pop(state, None)

    async def close(self) -> None:
        """End what runs, then what is shared."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        try:
            async with asyncio.timeout(TEARDOWN_S):
                await asyncio.gather(*running, return_exceptions=True)
                if self._side is not None:
                    await self._side.close()
        except Exception:  # noqa: BLE001 - nobody listens any more, and the process ends
            pass
