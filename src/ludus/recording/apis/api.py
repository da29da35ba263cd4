"""What all protocols come down to: a `Request` in our words, and an `Answer` that says a reply in theirs.

A protocol honours what it is asked or refuses it in its own error body, never half. Messages become ours on the way in,
so that a conversation is recognised, and its tokens are used again, whichever client carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from ludus.recording.recorder import Recorder
from ludus.recording.wire import TokenLogprobs, encode
from ludus.types import Message, Reply

Kind = Literal["thought", "text"]
"""What a piece of a reply is part of."""


@dataclass
class Caller:
    """Whose request it is.

    Args:
        recorder: records its calls.
        role: whose model it calls.
        agent: which sub-agent it is; "" is the rollout's own agent.
        threads: conversations by the id of their last answer, for protocols that let clients go on from one; None
            where nothing is kept.
    """

    recorder: Recorder
    role: str
    agent: str = ""
    threads: dict[str, list[Message]] | None = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The name of the model that really answers."""
        return self.recorder.backends[self.role].name


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, checked."""

    messages: list[Message]
    tools: list[dict[str, Any]] = []
    sampling: dict[str, Any] = {}
    """Fields of `Sampling` that it sets."""
    stream: bool = False
    logprobs: bool = False
    """Whether it wants the log-probabilities of the reply's tokens."""

    @property
    def live(self) -> bool:
        """Whether its stream can say text as it is sampled. Log-probabilities belong to tokens, pieces are text; and
        what a stop string cuts off is known at the end."""
        return self.stream and not self.logprobs and not self.sampling.get("stop")


class Answer(Protocol):
    """Says one reply: whole, or as server-sent events, `piece` any number of times and then `end` or `failed`."""

    def whole(self, reply: Reply, logprobs: TokenLogprobs | None) -> dict[str, Any]:
        """The JSON body."""
        ...

    def piece(self, kind: Kind, text: str) -> bytes:
        """The events of some more text; the first ones begin the answer."""
        ...

    def end(self, reply: Reply, logprobs: TokenLogprobs | None) -> bytes:
        """The events of all that no piece has said yet."""
        ...

    def failed(self, message: str) -> bytes:
        """The event of a failure in mid-stream."""
        ...


class Api(Protocol):
    """One protocol."""

    def read(self, body: Mapping[str, Any], caller: Caller) -> tuple[Request, Answer]:
        """A request and who will say its answer. Raises UsageError for what can't be honoured."""
        ...

    def error(self, status: int, message: str) -> dict[str, Any]:
        """The JSON body of a refusal or failure."""
        ...


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event that is named after its type."""
    name: str = body["type"]
    return b"event: " + name.encode() + b"\ndata: " + encode(body) + b"\n\n"
