"""`Process`: one process of somebody else's Python, and what is said to it.

Requests and answers are four bytes of length and JSON, each with an id. It is first spoken to in turn (an environment
is built, and its tasks are read, where there is no event loop), then, once adopted, by any number of tasks at once, and
the other side asks too: what the model says.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ludus.environments.verifiers.blame import ProcessDied, as_error
from ludus.environments.verifiers.calls import OVER, Calls, Recorded, said
from ludus.environments.verifiers.frames import HEADER_BYTES, pack, unpack
from ludus.errors import UsageError

BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from foreign.worker import main; del sys.path[0]; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)
STEP = struct.Struct("<qq")
"""The request whose code runs in a thread over there, 0 for none; and when that began, as a number of steps."""
LOOPS = 2
"""That run code over there: of the rollouts, and of the tools that they share."""
PING_S = 2.0
END_S = 15.0
"""For tearing down what the environment shares; then the process is killed."""
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


class Process:
    """A running process, with the environment loaded.

    Args:
        python: the interpreter.
        load: how the environment is built: arguments of `Worker.load`.
        load_s: seconds that may take.
        stall_s: seconds for which its code may hold up all rollouts in it.
    """

    def __init__(self, python: str, load: dict[str, Any], load_s: float, stall_s: float) -> None:
        self._load, self._load_s, self._stall_s = load, load_s, stall_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._calls: dict[int, dict[str, Calls]] = {}
        """By the number of the request that they are made for, and by role."""
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.about: dict[str, Any] = {}
        self.died: ProcessDied | None = None
        self._stalled = False
        self._printed: collections.deque[str] = collections.deque(maxlen=20)
        self._line, theirs = socket.socketpair()
        try:
            with theirs, tempfile.TemporaryFile() as memory:
                memory.truncate(mmap.PAGESIZE)
                self._memory = mmap.mmap(memory.fileno(), mmap.PAGESIZE)
                self._process = subprocess.Popen(
                    [python, "-c", BOOT, str(Path(__file__).parent), str(theirs.fileno()), str(memory.fileno())],
                    pass_fds=[theirs.fileno(), memory.fileno()], env=_environ(python, load["folder"]),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    start_new_session=True,  # an interrupt is for this process; and what it starts ends with it
                )  # fmt: skip
        except BaseException:
            self._line.close()
            raise
        assert self._process.stdout is not None  # a pipe
        threading.Thread(target=_read_on, args=(self._process.stdout, self._printed), daemon=True).start()
        threading.Thread(target=_hang_up_after, args=(self._process, self._line), daemon=True).start()

    # --- in turn --------------------------------------------------------------------------------------------------

    def load_now(self) -> None:
        """Build the environment. Raises UsageError, ConfigError or UnknownName."""
        try:
            self.about = self.ask_now("load", self._load_s, **self._load)
        except (ProcessDied, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            self.kill()
            why = f"it was not loaded within {self._load_s:g} s (load_s)" if late else str(error)
            raise UsageError(f"verifiers:{self._load['module']} can't be loaded: {why}") from None
        except BaseException:
            self.kill()
            raise

    def ask_now(self, do: str, timeout_s: float | None, **what: Any) -> Any:
        """Ask and wait, with nothing else going on. Raises ProcessDied, TimeoutError, or what went wrong over there."""
        self._line.settimeout(timeout_s)
        try:
            self._line.sendall(pack({"id": next(self._numbers), "do": do, **what}))
            size = int.from_bytes(self._receive_now(HEADER_BYTES), "big")
            return _answer(unpack(self._receive_now(size)))
        except (ConnectionError, EOFError):
            raise self._death() from None

    def _receive_now(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            piece = self._line.recv(min(count - len(received), 1 << 20))
            if not piece:
                raise EOFError
            received += piece
        return bytes(received)

    # --- many at once ---------------------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """From now on `ask` is used. Loads the environment if it isn't yet, and starts what its rollouts share.

        Raises UsageError, ConfigError or UnknownName.
        """
        self._line.settimeout(None)
        reader, self._writer = await asyncio.open_connection(sock=self._line)
        self._tasks = [asyncio.create_task(self._read(reader))]
        try:
            async with asyncio.timeout(self._load_s):
                self.about = self.about or await self.ask("load", **self._load)
                await self.ask("open")
        except (ProcessDied, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            why = f"it was not ready within {self._load_s:g} s (load_s)" if late else str(error)
            raise UsageError(f"verifiers:{self._load['module']} can't be opened: {why}") from None
        self._tasks.append(asyncio.create_task(self._watch()))

    @property
    def num_waiting(self) -> int:
        """Requests under way."""
        return len(self._waiting)

    async def ask(self, do: str, models: Mapping[str, Recorded] | None = None, /, **what: Any) -> Any:
        """Ask and wait; being cancelled cancels it over there.

        Args:
            do: a method of `Worker`.
            models: by role, answer the model calls that it takes.
            **what: the method's arguments.

        Raises ProcessDied, or what went wrong over there.
        """
        if self.died is not None:
            raise ProcessDied(str(self.died))
        assert self._writer is not None  # adopted
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._calls[number] = {role: Calls(model, self._send) for role, model in (models or {}).items()}
        try:
            self._writer.write(pack({"id": number, "do": do, **what}))
            return await future
        except asyncio.CancelledError:
            self.tell("cancel", job=number)
            raise
        finally:
            self._waiting.pop(number, None)
            for calls in self._calls.pop(number).values():
                calls.close()

    def tell(self, do: str, **what: Any) -> None:
        """Ask, and don't wait for the answer."""
        self._send({"id": next(self._numbers), "do": do, **what})

    def _send(self, frame: dict[str, Any]) -> None:
        if self.died is None and self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(frame))

    def _take(self, frame: dict[str, Any]) -> None:
        """An answer, or a model call."""
        if "call" in frame:
            calls = self._calls.get(frame["job"], {}).get(frame["role"])
            if calls is not None:
                calls.take(frame)
            else:
                self._send(said(frame["call"], *OVER))
            return
        future = self._waiting.get(frame["id"])
        if future is not None and not future.done():
            try:
                future.set_result(_answer(frame))
            except Exception as error:  # noqa: BLE001 - raised where it was asked for
                future.set_exception(error)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
                self._take(unpack(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.died = await asyncio.to_thread(self._death)
        guilty = self._last_to_run()
        for number, future in self._waiting.items():
            if not future.done():
                future.set_exception(ProcessDied(str(self.died), guilty=number == guilty))

    def _last_to_run(self) -> int:
        """The request whose code ran at the end: where two threads had one, that which began later had the interpreter."""
        steps = (STEP.unpack_from(self._memory, i * STEP.size) for i in range(LOOPS))
        job, _ = max((step for step in steps if step[0]), key=lambda step: step[1], default=(0, 0))
        return int(job)

    async def _watch(self) -> None:
        """Kill it when its loop stands still: one rollout's code would hold up all the others for ever."""
        while True:
            await asyncio.sleep(PING_S)
            try:
                async with asyncio.timeout(self._stall_s):
                    await self.ask("ping")
            except ProcessDied:
                return
            except TimeoutError:
                self._stalled = True
                self.kill()
                return

    # --- its end --------------------------------------------------------------------------------------------------

    def _death(self) -> ProcessDied:
        """What is known of how it ended."""
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:  # it closed its line and lives on
            self.kill()
            status = self._process.wait()
        if self._stalled:
            return ProcessDied(f"its code held up everything else for {self._stall_s:g} s (stall_s) and was killed")
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        last = next((line for line in reversed(self._printed) if line.strip()), "")
        said = f": {_redacted(last.strip())}" if last else ""
        return ProcessDied(f"the process of the environment ended, {how}{said}")

    def kill(self) -> None:
        """End it and everything it started, now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._writer is None:
            self._line.close()

    async def end(self) -> None:
        """Let it tear down what its rollouts share, then end it. Nobody waits for an answer any more."""
        for task in self._tasks[1:]:
            task.cancel()
        if self._writer is not None:
            self._writer.write_eof()
        try:
            await asyncio.to_thread(self._process.wait, END_S)
        except subprocess.TimeoutExpired:
            pass
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()


def _answer(answer: dict[str, Any]) -> Any:
    """What was answered. Raises the error that was."""
    if "error" in answer:
        error = answer["error"]
        raise as_error({**error, "text": _redacted(error["text"]), "trace": _redacted(error["trace"])})
    return answer["answer"]


def _environ(python: str, folder: str) -> dict[str, str]:
    """Ours with three changes, for it and for what it starts: programs beside the interpreter come first, as if its
    virtual environment were active; modules in `folder` are found; and no proxy is between it and 127.0.0.1, where the
    model is."""
    path = os.pathsep.join([str(Path(python).parent), *filter(None, [os.environ.get("PATH")])])
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    exempt = ",".join([*([known] if known else []), "127.0.0.1", "localhost"])
    ours = os.environ.get("PYTHONPATH", "") if python == sys.executable else ""  # another Python has other libraries
    modules = os.pathsep.join(filter(None, [folder, ours]))
    changed = {"PATH": path, "PYTHONPATH": modules, "PYTHONUNBUFFERED": "1", "NO_PROXY": exempt, "no_proxy": exempt}
    return {**os.environ, **changed}


def _redacted(text: str) -> str:
    """The text without the values of environment variables that are named as if they were secret."""
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET.search(name):
            text = text.replace(value, f"${name}")
    return text


def _hang_up_after(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    """End the line with the process: what it has forked holds the other end open."""
    process.wait()
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _read_on(pipe: IO[bytes], lines: collections.deque[str]) -> None:
    """Keep the last lines of what is printed; a full pipe would hold up who prints."""
    with pipe:
        for line in pipe:
            shown = line.decode(errors="replace").rstrip().rpartition("\r")[2]  # of a progress bar its last state
            lines.append(shown[:500])
