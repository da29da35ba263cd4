"""What the scheduler and a worker process say to each other: length-prefixed msgpack frames on a socket pair."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import msgspec

from ludus.errors import Blame
from ludus.types import Call, EnvironmentRef, Message, Reply, Rollout, Seeds, Task

HEADER_BYTES = 4


class Build(msgspec.Struct, tag=True, frozen=True):
    """To a worker, first: the environment it runs."""

    environment: EnvironmentRef


class Play(msgspec.Struct, tag=True, frozen=True):
    """To a worker: run one attempt. `addresses` has, by role, the base URL and key of its model, and its name."""

    job: int
    task: Task
    seeds: Seeds
    split: str
    purpose: str
    timeout_s: float | None
    addresses: dict[str, tuple[str, str, str]]


class Answer(msgspec.Struct, tag=True, frozen=True):
    """To a worker: the result of an Ask."""

    ask: int
    reply: Reply | None = None
    calls: list[Call] | None = None
    error: str = ""
    blame: Blame = "infrastructure"


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From a worker: the environment is built, or why not."""

    error: str = ""


class Ask(msgspec.Struct, tag=True, frozen=True):
    """From a worker: a model call (with messages), or what has been recorded so far (without), once a sub-agent's calls
    were taken for the rollout's own (with `adopt`)."""

    ask: int
    job: int
    role: str = ""
    agent: str = ""
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] = []
    sampling: dict[str, Any] = {}
    adopt: str = ""


class Done(msgspec.Struct, tag=True, frozen=True):
    """From a worker: an attempt has ended. Its token sequences stay where the model is."""

    job: int
    rollout: Rollout


ToWorker = Build | Play | Answer
FromWorker = Ready | Ask | Done

_encode = msgspec.msgpack.Encoder().encode


@functools.cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def send(writer: asyncio.StreamWriter, frame: msgspec.Struct) -> None:
    """Write a frame. Nothing is awaited: the other side always reads."""
    body = _encode(frame)
    writer.write(len(body).to_bytes(HEADER_BYTES, "big") + body)


async def receive(reader: asyncio.StreamReader, kind: Any) -> Any:
    """The next frame; None when the other side has gone."""
    try:
        size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
        return _decoder(kind).decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
