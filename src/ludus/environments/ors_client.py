"""The Open Reward Standard over HTTP: JSON, and tool calls as server-sent events that can be taken up again.

A call's stream first names its task; where the stream breaks after that, the same task is asked for again, so that no
tool runs twice. Where it breaks before, nobody knows whether the tool ran, and the rollout fails as infrastructure.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx2

from ludus.environments.remote import lost
from ludus.environments.remote_fetch import connection, said
from ludus.errors import RolloutError, RolloutTimeout

TRIES = 32
"""In about a minute: a server that was started again is soon back."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 2.0
"""Between tries; each is twice as long as the one before."""
SILENCE_S = 60.0
"""Without a byte on an open stream, after which it is taken for broken; servers send one every ten seconds."""
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout)
"""Errors after which the server has heard of nothing."""
IDLE_S = 2.0
"""For which a connection is kept: less than servers keep it, as it must not be closed while it is taken up again."""
BUSY = (429, 502, 503, 504)
"""Status codes that pass, such as those of a server that has no place for another session yet."""


class Client:
    """One session of a server, with connections of its own: looking for a free one among hundreds takes longer than to
    open one.

    Args:
        url: of the server.
        headers: sent with each request.
        timeout_s: for one tool call, and for any other answer.
    """

    def __init__(self, url: str, headers: dict[str, str], timeout_s: float) -> None:
        self.sid = ""
        """The session's name, once it has one."""
        self._timeout_s = timeout_s
        limits = httpx2.Limits(keepalive_expiry=IDLE_S)
        self._http = httpx2.AsyncClient(**connection(url, headers, timeout_s), limits=limits)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: Any = None, tries: int = TRIES) -> Any:
        """The JSON that a request is answered with; None for 404.

        Raises:
            RolloutError: the server refused, its environment raised, or it could not be reached.
        """
        began, tried = time.monotonic(), 0
        while True:
            tried += 1
            try:
                response = await self._http.request(method, path, headers=self._session(), json=body)
            except httpx2.HTTPError as error:
                again = (method == "GET" or isinstance(error, UNSENT)) and tried < tries
                if not again:
                    raise lost(f"{method} {path} was not answered: {said(error)}") from None
            else:
                busy = response.status_code in BUSY and time.monotonic() - began < self._timeout_s
                if not busy or tries == 1:
                    return _json_of(response)
            await asyncio.sleep(_delay_s(tried))

    async def stream(self, path: str, body: dict[str, Any] | None = None) -> tuple[str, Any]:
        """The name of the task and the JSON that its events add up to. Raises RolloutError."""
        task, tried = "", 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    tried += 1
                    try:
                        return await self._events(path, {**(body or {}), **({"task_id": task} if task else {})})
                    except _Broken as error:
                        task = task or error.task
                        if tried == TRIES or not (task or error.unsent):
                            raise lost(f"the answer to {path} broke off: {error}") from None
                    await asyncio.sleep(_delay_s(tried))
        except TimeoutError:
            raise RolloutTimeout(f"{path} took more than {self._timeout_s:g} s", "infrastructure") from None

    def _session(self) -> dict[str, str]:
        return {"X-Session-ID": self.sid} if self.sid else {}

    async def _events(self, path: str, body: dict[str, Any]) -> tuple[str, Any]:
        task, pieces = str(body.get("task_id", "")), list[str]()
        silence = httpx2.Timeout(self._timeout_s, read=SILENCE_S)
        try:
            async with self._http.sse(
                path, method="POST", json=body, headers=self._session(), timeout=silence
            ) as source:
                if source.response.status_code in BUSY:
                    raise _Broken(f"HTTP {source.response.status_code}", task, unsent=True)
                if source.response.is_error:
                    await source.response.aread()
                    _json_of(source.response)
                    raise lost(f"the server has no {path}, or not the session any more")
                async for event in source:
                    if event.event == "task_id":
                        task = event.data.strip()
                    elif event.event == "error":
                        raise RolloutError(
                            f"the server's environment failed: {event.data or 'no reason given'}", "tool"
                        )
                    elif event.event in ("chunk", "end"):
                        pieces.append(event.data)
                    if event.event == "end":
                        return task, _decoded("".join(pieces), path)
        except httpx2.TransportError as error:
            unsent = isinstance(error, UNSENT)
            raise _Broken(said(error), task, unsent) from None
        raise _Broken("the stream ended early", task)


class _Broken(Exception):
    """A stream that did not come to its end."""

    def __init__(self, why: str, task: str, unsent: bool = False) -> None:
        super().__init__(why)
        self.task, self.unsent = task, unsent


def _delay_s(tried: int) -> float:
    """Before a further try."""
    return min(FIRST_DELAY_S * 2.0 ** (tried - 1), LONGEST_DELAY_S)


def _json_of(response: httpx2.Response) -> Any:
    if response.status_code == 404:
        return None
    if response.is_success:
        return _decoded(response.text, response.request.url.path)
    text, status = _detail(response), response.status_code
    if status in (401, 403, *BUSY):
        raise lost(f"the server answered with HTTP {status}: {text}")
    raise RolloutError(f"the server's environment failed (HTTP {status}): {text}")


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])[:500]
    except (ValueError, TypeError, KeyError):
        return response.text[:500]


def _decoded(text: str, path: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise lost(f"the server answered {path} with what is no JSON: {text[:200]}") from None
