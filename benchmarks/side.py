"""`Side`: one side of a comparison, a process of its own that is asked to do work and waits in between.

All sides of a benchmark are started first and then asked in turn, A B A B, so that a machine that slows down slows all
of them. Wall time is taken here, around the question; CPU time is that of the side's whole process tree.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".bench"
"""Environments of peers, models and logs; git ignores it."""
SCRIPTS = Path(__file__).parent / "sides"
LAST_LINES = 12


@dataclass(frozen=True)
class Answer:
    """What a side answered, and what it took."""

    wall_s: float
    cpu_s: float
    """Of all processes of the side."""
    values: dict[str, Any]


class SideFailed(RuntimeError):
    """A side ended without an answer."""


class Side:
    """A script of `sides/`, started with its settings.

    Args:
        name: of the side and of its log.
        script: file name in `sides/`.
        python: interpreter that has what the script needs.
        settings: handed to the script.
        env: environment variables beside those of this process.

    Raises:
        SideFailed: it ended before it was ready.
    """

    def __init__(
        self, name: str, script: str, python: Path, settings: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        (WORK / "logs").mkdir(parents=True, exist_ok=True)
        self._log = WORK / "logs" / f"{name.replace(' ', '-').replace('/', '-')}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), str(SCRIPTS / script)], cwd=WORK,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(env or {})},
            )  # fmt: skip
        self._write(settings)
        self.about = self._read()

    def ask(self, **command: Any) -> Answer:
        """Have it do something. Raises SideFailed."""
        began, cpu = time.perf_counter(), self.cpu_s()
        self._write(command)
        values = self._read()
        return Answer(time.perf_counter() - began, self.cpu_s() - cpu, values)

    def cpu_s(self) -> float:
        """CPU seconds of its processes so far."""
        return tree_cpu_s(self._process.pid)

    def close(self) -> None:
        """End it, and what it leaves behind: vLLM's engine outlives the process that started it."""
        assert self._process.stdin is not None  # it is a pipe
        with ending(self._process.pid):
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, values: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None  # it is a pipe
        try:
            print(json.dumps(values), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._read()  # which says why

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # it is a pipe
        line = self._process.stdout.readline()
        if not line:
            last = "\n  ".join(self._log.read_text(errors="replace").splitlines()[-LAST_LINES:])
            raise SideFailed(f"{self.name} ended without an answer; the end of {self._log}:\n  {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Named(Protocol):
    """Anything that is asked in turn."""

    name: str


SideT = TypeVar("SideT", bound=Named)


def alternate(
    sides: Sequence[SideT], rounds: int, ask: Callable[[SideT], Answer], *, warm_up: int = 1
) -> dict[str, list[Answer]]:
    """Ask each side in turn, so many rounds; answers by the side's name, without those of the first `warm_up`."""
    answers: dict[str, list[Answer]] = {side.name: [] for side in sides}
    for number in range(warm_up + rounds):
        for side in sides:
            answer = ask(side)
            if number >= warm_up:
                answers[side.name].append(answer)
    return answers


def median(answers: Sequence[Answer], figure: Callable[[Answer], float]) -> float:
    """The median of a figure."""
    return statistics.median(figure(answer) for answer in answers)


_orphans_s = 0.0
"""CPU seconds of processes that a side left behind: they are nobody's children any more."""


@contextmanager
def ending(group: int) -> Iterator[None]:
    """Around the end of a process and its group; what is left of the group is killed."""
    global _orphans_s
    spent, waited = tree_cpu_s(group), _waited_s()
    yield
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _orphans_s += max(0.0, spent - (_waited_s() - waited))


def own_cpu_s() -> float:
    """CPU seconds of this process and all that it started, ended ones and their orphans included."""
    return tree_cpu_s(os.getpid()) + _orphans_s


def _waited_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process, of its living descendants, and of those that it or they have waited for."""
    ticks, children = dict[int, int](), dict[int, list[int]]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        process = int(stat.parent.name)
        ticks[process] = sum(int(field) for field in fields[11:15])
        children.setdefault(int(fields[1]), []).append(process)
    total, left = 0, [pid]
    while left:
        process = left.pop()
        total += ticks.get(process, 0)
        left += children.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")
