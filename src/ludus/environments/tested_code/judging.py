"""The verdict on code: its tests, one after another, with the code in one sandbox and Python tests in another.

Whatever the code does, it does to the sandbox that it is alone in. It can't end its tests early, print their results or
read what they expect: what it says is the answer to a call, and the comparison is made elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ludus.environments.tested_code.inside import MARK, decode, encode
from ludus.environments.tested_code.kinds import Call, Run, Test, Text, count, same, same_output
from ludus.errors import SandboxFailed
from ludus.protocols import Sandbox, SandboxResult

INSIDE = files(__package__).joinpath("inside.py").read_text(encoding="utf-8")
OUT_OF_TIME = "out of time"
NO_ANSWER = "the code ended its process, or was killed for the time or memory that it took"


class NoAnswer(Exception):
    """The code gives no answer; the text says why."""


@dataclass
class Verdict:
    """How tests ended."""

    problems: list[str]
    """Of each test, why it was not passed; "" where it was."""

    @property
    def share(self) -> float:
        """Of tests that were passed."""
        return self.problems.count("") / len(self.problems)


class Clock:
    """The time that all tests of one solution have together."""

    def __init__(self, seconds: float) -> None:
        self._end = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        """Seconds. Raises NoAnswer where there are none."""
        left = self._end - asyncio.get_running_loop().time()
        if left <= 0:
            raise NoAnswer(OUT_OF_TIME)
        return left

    def see(self, result: SandboxResult) -> None:
        """Where code was killed for the processor time that it took, no time is left."""
        if result.exit_code == -signal.SIGKILL and not result.oom_killed:
            self._end = -math.inf


class Side:
    """A Python session with an object of `inside.py`, which answers in lines of JSON; begun again where it has ended.

    Args:
        make: the object's class.
    """

    def __init__(self, sandbox: Sandbox, clock: Clock, make: str) -> None:
        self.sandbox, self._clock, self._make = sandbox, clock, make
        self.begun = False

    async def call(self, method: str, calls: Sequence[Sequence[Any]], *, anew: bool = False) -> list[dict[str, Any]]:
        """Call a method of the object a number of times.

        Args:
            calls: arguments of each, JSON values.
            anew: on a new object.

        Returns:
            What it said each time; less often than it was called, where the session ended or time was over on the way.

        Raises:
            NoAnswer: no time is left, or the sandbox has ended because of what runs in it.
        """
        lines = [] if self.begun else [INSIDE]
        lines += [f"_side = {self._make}()"] if anew or not self.begun else []
        lines += [f"say(lambda: _side.{method}(*json.loads({json.dumps(args)!r})))" for args in calls]
        result = await _result(self.sandbox.python("\n".join(lines), timeout_s=self._clock.left()))
        self._clock.see(result)
        said = [line.removeprefix(MARK) for line in result.stdout.split("\n") if line.startswith(MARK)]
        self.begun = len(said) >= len(calls)
        return [_object(line) for line in said[: len(calls)]]


class Solution:
    """The code that is tested, in its own sandbox.

    Args:
        path: its file there.
        command: how it runs as a program.
    """

    def __init__(self, sandbox: Sandbox, clock: Clock, path: str, command: Sequence[str]) -> None:
        self._side, self._clock, self._path, self._command = Side(sandbox, clock, "Solution"), clock, path, command
        self._names: Any = None

    async def ask(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The replies to requests, fewer where the code ends its process on the way. Raises NoAnswer."""
        await self.names()
        return await self._side.call("answer", [[request] for request in requests])

    async def names(self) -> Any:
        """Its public names, encoded, once it is loaded. Raises NoAnswer where it can't be."""
        if not self._side.begun:
            replies = await self._side.call("answer", [[{"do": "load", "name": self._path}]])
            if not replies or "value" not in replies[0]:
                raise NoAnswer(_said(replies[0]) if replies else NO_ANSWER)
            self._names = replies[0]["value"]
        return self._names

    async def run(self, test: Run) -> str:
        """What is wrong with what the program prints; "" where nothing is. Raises NoAnswer."""
        running = self._side.sandbox.exec(self._command, stdin=test.stdin, timeout_s=self._clock.left())
        result = await _result(running)
        self._clock.see(result)
        self._clock.left()
        if result.exit_code:
            return f"exit code {result.exit_code}: {result.stderr[-200:]}"
        return "" if same_output(test.stdout, result.stdout) else f"printed {result.stdout[:200]!r}"


async def _result(running: Awaitable[SandboxResult]) -> SandboxResult:
    """What became of the code. Raises NoAnswer, and SandboxFailed where that is no fault of its own."""
    try:
        return await running
    except SandboxFailed as error:
        if error.blame != "policy":
            raise
        raise NoAnswer(str(error)) from None


async def judge(
    tests: Sequence[Test],
    new_sandbox: Callable[[], Awaitable[Sandbox]],
    furnish: Callable[[Sandbox], Awaitable[None]],
    *,
    path: str,
    command: Sequence[str],
    time_limit_s: float,
) -> Verdict:
    """Run tests on a solution.

    Args:
        new_sandbox: makes the sandboxes, which are killed here: one for the code, one for tests that are Python.
        furnish: puts the solution into the one for the code.
        path: the solution's file.
        command: how it runs as a program.
        time_limit_s: for all tests; what has not passed by then has not passed.

    Raises:
        SandboxFailed: through no fault of the code.
    """
    problems: list[str] = []
    async with AsyncExitStack() as stack:

        async def fresh() -> Sandbox:
            sandbox = await new_sandbox()
            stack.push_async_callback(sandbox.kill)
            return sandbox

        box = await fresh()
        await furnish(box)
        clock = Clock(time_limit_s)
        solution = Solution(box, clock, path, command)
        tester: Side | None = None
        try:
            for group in _groups(tests):
                if isinstance(group, Text):
                    tester = tester or Side(await fresh(), clock, "Tests")
                    for name in group.names:
                        problems.append(await _text(solution, tester, group.source, name))
                elif isinstance(group, Run):
                    problems.append(await solution.run(group))
                else:
                    problems += await _calls(solution, group)
        except NoAnswer as error:
            problems += [str(error)] * (count(tests) - len(problems))
    return Verdict(problems)


def _groups(tests: Sequence[Test]) -> list[Text | Run | list[Call]]:
    """In order; calls that follow each other are made at once."""
    groups: list[Text | Run | list[Call]] = []
    for test in tests:
        if not isinstance(test, Call):
            groups.append(test)
        elif groups and isinstance(groups[-1], list):
            groups[-1].append(test)
        else:
            groups.append([test])
    return groups


async def _calls(solution: Solution, calls: Sequence[Call]) -> list[str]:
    """Of each call, what is wrong with its value; one that ends the process is wrong, and the others go on."""
    problems: list[str] = []
    while len(problems) < len(calls):
        left = calls[len(problems) :]
        try:
            replies = await solution.ask([_request(call) for call in left])
        except NoAnswer as error:
            return problems + [str(error)] * len(left)
        problems += [_difference(call, reply) for call, reply in zip(left, replies, strict=False)]
        if len(replies) < len(left):
            problems.append(NO_ANSWER)
    return problems


async def _text(solution: Solution, tester: Side, source: str, name: str) -> str:
    """Run one test that is Python, and hand what it asks to the solution and back. Raises NoAnswer."""
    names = await solution.names()
    said = await tester.call("begin", [[source, name, names]], anew=True)
    ended = ""
    while said and "do" in said[0]:
        replies = await solution.ask([said[0]])
        ended = ended or ("" if replies else NO_ANSWER)
        reply = replies[0] if replies else {"raised": "RuntimeError", "text": NO_ANSWER}
        said = await tester.call("step", [[reply]])
    if ended or not said:
        return ended or "the test ended the process that it runs in"
    return "" if said[0].get("passed") is True else str(said[0].get("why") or "not passed")


def _request(call: Call) -> dict[str, Any]:
    args = [encode(value, _no_object) for value in call.args]
    kwargs = {name: encode(value, _no_object) for name, value in call.kwargs.items()}
    return {"do": "call", "name": call.call, "args": args, "kwargs": kwargs}


def _no_object(value: Any) -> int:
    raise TypeError(f"a test holds JSON values only, not a {type(value).__name__}")


def _difference(call: Call, reply: dict[str, Any]) -> str:
    if call.raises:
        return "" if reply.get("raised") == call.raises else f"{_said(reply)} where {call.raises} was to be raised"
    if "value" not in reply:
        return _said(reply)
    try:
        right = same(call.returns, decode(reply["value"], lambda number: object()))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        return f"returned what can't be read: {error!r}"
    return "" if right else f"returned {str(reply['value'])[:200]}"


def _said(reply: dict[str, Any]) -> str:
    if "raised" in reply:
        return f"{reply['raised']}: {reply.get('text', '')}"
    return f"returned {str(reply.get('value'))[:200]}"


def _object(line: str) -> dict[str, Any]:
    """What a session said; what is no object says nothing."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
