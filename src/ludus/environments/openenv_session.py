"""An OpenEnv episode over its WebSocket, which is the only thing that is a session there.

A socket that is lost is opened again, as soon as the server is back, and the episode replayed up to where it was: the
same messages must bring the same answers, else the rollout fails as infrastructure. Servers hold few sessions at once
(one, by default), so rollouts queue for them; the server says how many there are when it is asked for one too many.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from ludus.environments.remote import lost
from ludus.errors import RolloutError, RolloutTimeout, ToolError

log = logging.getLogger(__name__)

RECONNECTS = 3
"""Times in a row that a message may cost its socket: it may be what the server dies of."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 2.0
"""Between tries; each is twice as long as the one before."""
MOST_BYTES = 100 * 2**20
"""Of one answer: some have screenshots in them."""
CLOSING_S = 2.0
REFUSALS = ("VALIDATION_ERROR", "INVALID_JSON")
"""Codes of errors that are the sender's own."""


@dataclass(frozen=True)
class Line:
    """How a server is reached."""

    url: str
    """Of its WebSocket."""
    headers: dict[str, str] = field(repr=False)  # it may hold a key
    direct: bool
    """No proxy between."""
    ping_s: float | None
    """Between two keep-alive pings, and for which an answer to one is waited; None sends none."""
    timeout_s: float
    """For one answer, and for a server to come back."""
    replay: bool
    """Whether an episode may be played again after its socket was lost."""


class Slots:
    """A queue for the sessions of a server.

    Args:
        limit: sessions at once; fewer when the server says so.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._changed = asyncio.Event()
        self._told = False

    async def take(self) -> None:
        """Wait for a place."""
        while self._taken >= self.limit:
            self._changed.clear()
            await self._changed.wait()
        self._taken += 1

    def give_back(self) -> None:
        """Leave it to the next."""
        self._taken -= 1
        self._changed.set()

    def full(self, url: str, most: Any) -> None:
        """The server has no place left, of `most` in all (if it says how many)."""
        if isinstance(most, int) and most >= 1:
            self.limit = min(self.limit, most)
        if not self._told:
            self._told = True
            log.warning("%s holds %s sessions at once: rollouts wait for each other", url, most or "no more")


class _Lost(Exception):
    """The socket is gone."""


class _Unreachable(_Lost):
    """The socket could not be opened."""


class _Full(Exception):
    """The server has no place for another session; args[0] is how many it holds."""


@dataclass
class Session:
    """One episode: a WebSocket, and what was said over it so far."""

    line: Line
    slots: Slots
    _said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _socket: ClientConnection | None = None
    _has_slot: bool = False

    async def ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """Send "reset" or "step", and get the answer's data.

        Raises:
            ToolError: the server refuses the data, e.g. as no valid action.
            RolloutError: its environment raised, or the line was lost for good.
        """
        message = json.dumps({"type": kind, "data": data})
        delay_s, tries, away_since = FIRST_DELAY_S, 0, None
        while True:
            try:
                if self._socket is None:
                    await self._open_and_replay()
                answer = await self._exchange(message)
                self._said.append((message, answer))
                return answer
            except _Full as error:
                await self.close()
                self.slots.full(self.line.url, error.args[0])
            except _Lost as error:
                await self._drop()
                if isinstance(error, _Unreachable):
                    away_since = away_since or time.monotonic()
                    over = time.monotonic() - away_since > self.line.timeout_s
                else:
                    tries, away_since = tries + 1, None
                    over = tries > RECONNECTS
                if over or (self._said and not self.line.replay):
                    raise lost(f"the connection to {self.line.url} was lost: {error}") from None
                log.info("%s: %s; connecting again", self.line.url, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def close(self) -> None:
        """End the session, also half-way through anything."""
        try:
            await self._drop()
        finally:
            if self._has_slot:
                self._has_slot = False
                self.slots.give_back()

    async def _open_and_replay(self) -> None:
        if not self._has_slot:
            await self.slots.take()
            self._has_slot = True
        line = self.line
        try:
            self._socket = await connect(
                line.url, additional_headers=line.headers, proxy=None if line.direct else True,
                ping_interval=line.ping_s, ping_timeout=line.ping_s, close_timeout=CLOSING_S, open_timeout=line.timeout_s,
                max_size=MOST_BYTES, compression=None,
            )  # fmt: skip
        except InvalidStatus as error:
            raise _Unreachable(f"it answered with HTTP {error.response.status_code}") from None
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise _Unreachable(f"{type(error).__name__}: {error}") from None
        except WebSocketException as error:
            raise lost(f"{line.url} can't be reached: {error}") from None
        for message, answer in self._said:
            try:
                again = await self._exchange(message)
            except ToolError:
                again = {}
            if _essence(again) != _essence(answer):
                raise lost(
                    f"the connection to {line.url} was lost, and the episode can't be played again: the same actions "
                    f"brought another answer"
                )

    async def _exchange(self, message: str) -> dict[str, Any]:
        assert self._socket is not None
        try:
            async with asyncio.timeout(self.line.timeout_s):
                try:
                    await self._socket.send(message)
                except ConnectionClosed:
                    pass  # what the server said before it hung up is still to be read
                answer = await self._socket.recv()
        except TimeoutError:
            text = f"{self.line.url} gave no answer in {self.line.timeout_s:g} s"
            raise RolloutTimeout(text, "infrastructure") from None
        except ConnectionClosed as error:
            raise _Lost(str(error)) from None
        return _read(answer)

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


def _essence(data: dict[str, Any]) -> dict[str, Any]:
    """An answer without what may well be another one each time."""
    observation = data.get("observation")
    if isinstance(observation, dict):
        data = {**data, "observation": {name: observation[name] for name in observation if name != "metadata"}}
    return {name: data[name] for name in data if name != "metadata"}


def _read(text: str | bytes) -> dict[str, Any]:
    """The data of an answer. Raises ToolError, _Full, RolloutError."""
    try:
        answer = json.loads(text)
        kind, data = answer["type"], answer["data"]
        code, problem = (data.get("code"), _problem(data)) if kind == "error" else (None, "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise lost(f"the server answered with what is no OpenEnv message: {text[:200]!s}") from None
    if kind == "observation" and isinstance(data, dict):
        return data
    if code == "CAPACITY_REACHED":
        raise _Full(data.get("max_sessions"))
    if code in REFUSALS:
        raise ToolError(problem)
    if kind == "error":
        raise RolloutError(f"the server's environment failed ({code}): {problem}")
    raise lost(f"expected an observation from the server, got {text[:200]!s}")


def _problem(data: dict[str, Any]) -> str:
    """What an error says, with the fields that are wrong."""
    errors = data.get("errors")
    fields = [
        f"{'.'.join(map(str, error.get('loc', ())))}: {error.get('msg')}"
        for error in (errors if isinstance(errors, list) else ())
        if isinstance(error, dict)
    ]
    return "; ".join([str(data.get("message", "no reason given")), *fields])
