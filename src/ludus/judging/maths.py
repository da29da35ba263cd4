"""`MathChecker`: whether a reply ends with the mathematical answer that a task knows, by math-verify.

The comparison runs in processes of its own (`maths_worker.py`): a model's `9^{9^{9^9}}` would hold up, or end, any other.
What takes more processor time or memory than an answer should is not the answer; a worker that fails for another reason
is the failure of a scorer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import select
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import msgspec

from ludus.errors import ConfigError, MissingExtra, ScorerFailed

STARTING_S = 120.0
"""For a worker to import what it needs, on a machine that is busy."""
SLACK_S, SLACKNESS = 30.0, 20.0
"""Wall-clock time that a comparison may take, beyond so many times its processor time."""
GRACE_S = 2.0
"""For a process whose output has ended to end."""
BY_ANSWER = (signal.SIGXCPU, signal.SIGSEGV)
"""What ends a worker that is given an answer beyond all bounds: too much time, or nesting too deep for the interpreter."""
MOST_CHARACTERS = 20_000
"""Of a reply, from its end: the answer is there."""


class Comparison(msgspec.Struct):
    """Asked of a worker."""

    reply: str
    answer: str
    cpu_s: int


class Outcome(msgspec.Struct):
    """A worker's answer; `problem` is why the known answer can't be compared with."""

    same: bool = False
    problem: str = ""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]

    def read(self, timeout_s: float) -> bytes | None:
        """A line; b"" where the worker has ended, None where it is late."""
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        return self.process.stdout.readline() if poll.poll(1000 * timeout_s) else None

    def end(self, grace_s: float = 0.0) -> int:
        """Kill it, if it has not ended by then; the exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        self.process.kill()
        status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what it was asked last may not have been taken
                pipe.close()  # type: ignore[union-attr] # both are pipes
        return status


class MathChecker:
    """Called with a reply and the known answer, in LaTeX or as plain text; meant to be called from threads, as scorers
    that are no coroutines are.

    Args:
        cpu_s: seconds of processor time that an answer may take; one that takes more is not the answer.
        workers: comparisons at once.

    Raises:
        MissingExtra: math-verify is not installed.
        ConfigError: a setting out of its range.
    """

    def __init__(self, cpu_s: int = 5, workers: int = 2) -> None:
        if type(cpu_s) is not int or cpu_s < 1 or type(workers) is not int or workers < 1:
            raise ConfigError(f"MathChecker: cpu_s and workers are whole numbers from 1, got {cpu_s!r} and {workers!r}")
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("comparing mathematical answers", "math")
        self._cpu_s = cpu_s
        self._turns = threading.Semaphore(workers)
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        weakref.finalize(self, _end_all, self._idle)

    def __call__(self, reply: str, answer: str) -> bool:
        """Whether the last answer in a reply is the known one: the boxed one, or what is said at its end.

        Raises:
            ScorerFailed: the known answer can't be read, or the comparison broke.
        """
        if not isinstance(answer, str) or not answer.strip():
            raise ScorerFailed(f"the known answer must be a text, got {answer!r}")
        said, known = (text.encode(errors="replace").decode() for text in (reply[-MOST_CHARACTERS:], answer))
        asked = Comparison(said, known, self._cpu_s)
        with self._turns:
            worker = self._take()
            try:
                outcome = self._ask(worker, asked)
            except BaseException:
                worker.end()
                raise
        if outcome.problem:
            raise ScorerFailed(f"the known answer {answer!r} can't be compared with: {outcome.problem}")
        return outcome.same

    def close(self) -> None:
        """End the workers; others are started where they are needed."""
        _end_all(self._idle)

    def _take(self) -> _Worker:
        """A worker that waits, or a new one. Raises ScorerFailed."""
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        command = [sys.executable, "-m", "ludus.judging.maths_worker"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        worker = _Worker(subprocess.Popen(command, **pipes, start_new_session=True))
        if not worker.read(STARTING_S):
            worker.end()
            raise ScorerFailed("the process that compares mathematical answers did not start", "infrastructure")
        return worker

    def _ask(self, worker: _Worker, asked: Comparison) -> Outcome:
        """Raises ScorerFailed where the worker broke for a reason of its own."""
        assert worker.process.stdin is not None
        line: bytes | None = b""
        with contextlib.suppress(BrokenPipeError):
            worker.process.stdin.write(msgspec.json.encode(asked) + b"\n")
            worker.process.stdin.flush()
            line = worker.read(SLACKNESS * self._cpu_s + SLACK_S)
        if line:
            self._idle.put(worker)
            return msgspec.json.decode(line, type=Outcome)
        if line is None:
            raise ScorerFailed("comparing mathematical answers took too long on this machine", "infrastructure")
        status = worker.end(GRACE_S)
        if -status in BY_ANSWER:
            return Outcome()
        raise ScorerFailed(f"the process that compares mathematical answers ended with {status}", "infrastructure")


def _end_all(idle: queue.SimpleQueue[_Worker]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            idle.get_nowait().end()
