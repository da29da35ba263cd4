"""The rollout's model, as code over here reaches it: over the line, and without a word that was said before."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

Answer = tuple[int, dict[str, Any]]
"""Status and body of an HTTP response, had there been one."""


class Line:
    """Calls that wait for their answers.

    Args:
        send: sends JSON to the other side.
    """

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    async def call(self, job: int, role: str, what: str) -> Answer:
        """What a call is answered with; being cancelled cancels it over there.

        Args:
            job: the request that it is made for.
            role: whose model is asked.
            what: a JSON object.
        """
        if asyncio.get_running_loop() is not self._loop:  # a thread of the environment has a loop of its own
            asked = asyncio.run_coroutine_threadsafe(self.call(job, role, what), self._loop)
            return await asyncio.wrap_future(asked)
        number, whose = next(self._numbers), f'"job": {job}, "role": {json.dumps(role)}'
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[number] = future
        try:
            self._send(f'{{{whose}, "call": {number}, {what[1:]}')
            return await future
        except asyncio.CancelledError:
            self._send(f'{{{whose}, "call": {number}}}')
            raise
        finally:
            del self._waiting[number]

    def answered(self, number: int, status: int, body: dict[str, Any]) -> None:
        """The answer of a call."""
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result((status, body))


class Speaker:
    """The model of one rollout and role.

    Args:
        line: to the other side.
        job: the request that plays the rollout.
        role: whose model it is.
        base_url: the address of the same model, for what a line can't say: streams, other protocols.
        api_key: opens it.
    """

    def __init__(self, line: Line, job: int, role: str, base_url: str, api_key: str) -> None:
        self._line, self._job, self._role = line, job, role
        self.base_url, self.api_key = base_url, api_key
        self._messages: list[Any] = []
        self._rest: dict[str, Any] = {}

    async def complete(self, request: dict[str, Any]) -> Answer:
        """What a chat completion is answered with."""
        rest = {name: value for name, value in request.items() if name != "messages"}
        messages, keep = request["messages"], 0
        for old, new in zip(self._messages, messages, strict=False):
            if old != new:
                break
            keep += 1
        what: dict[str, Any] = {"keep": keep, "messages": messages[keep:]}
        if rest != self._rest:
            what["rest"] = rest
        text = json.dumps(what)  # may raise, and then both sides are as they were
        # Copies: messages may be edited where they were made.
        self._messages = [*self._messages[:keep], *deepcopy(messages[keep:])]
        self._rest = deepcopy(rest) if "rest" in what else self._rest
        return await self._line.call(self._job, self._role, text)
