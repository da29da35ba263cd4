"""The model calls of one rollout, asked for by code in another process.

A request is the body of an OpenAI chat completion, without what the last one of the rollout had already: the messages
that both begin with, and the other fields if they are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from ludus.redaction import SECRETS
from ludus.types import Message

log = logging.getLogger(__name__)

OVER = 401, {"error": {"message": "the rollout that this model belongs to is over", "type": "authentication_error"}}


@runtime_checkable
class Recorded(Protocol):
    """What a model can do where the rollout is recorded in this process."""

    async def answer(self, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """What a POST of the request to `base_url`/chat/completions is answered with: status and body."""
        ...

    def forget(self) -> None:
        """Begin the record anew."""
        ...


class Calls:
    """Answers the calls of one rollout.

    Args:
        model: whose answers they are.
        send: sends a frame to the other process.
    """

    def __init__(self, model: Recorded, send: Callable[[dict[str, Any]], None]) -> None:
        self._model, self._send = model, send
        self._messages: list[Message] = []
        self._rest: dict[str, Any] = {}
        self._under_way: dict[int, asyncio.Task[None]] = {}

    def take(self, frame: Mapping[str, Any]) -> None:
        """A call, or the end of one that nobody waits for any more."""
        number: int = frame["call"]
        if "messages" not in frame:
            if (task := self._under_way.get(number)) is not None:
                task.cancel()
            return
        self._messages = [*self._messages[: frame["keep"]], *frame["messages"]]
        self._rest = frame.get("rest", self._rest)
        task = asyncio.create_task(self._answer(number, {**self._rest, "messages": self._messages}))
        self._under_way[number] = task
        task.add_done_callback(lambda _: self._under_way.pop(number, None))

    async def _answer(self, number: int, request: Mapping[str, Any]) -> None:
        try:
            status, body = await self._model.answer(request)
        except Exception as error:  # else whoever asked would wait for ever
            log.exception("a model call from another process failed")
            status, body = 500, {"error": {"message": SECRETS.hide(f"{type(error).__name__}: {error}")}}
        self._send(said(number, status, body))

    def close(self) -> None:
        """The rollout is over: what is under way nobody will read."""
        for task in self._under_way.values():
            task.cancel()


def said(number: int, status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """The frame that answers a call."""
    return {"do": "said", "call": number, "status": status, "body": body}
