"""Job: one request on its way through the batch, and Event: what its caller is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ludus.engine.torch.cache import Slot
from ludus.errors import LudusError
from ludus.protocols import SampleChunk, SampleRequest
from ludus.types import FinishReason


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way through the batch."""

    request: SampleRequest
    limit: int
    """Tokens of prompt and reply together at which the reply is cut."""
    seed: int
    arrival: int
    """Number of the request, to order what `request.order` leaves equal."""
    tokens: list[int]
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    slot: Slot | None = None
    num_sent: int = 0
    cancelled: bool = False

    @property
    def num_sampled(self) -> int:
        return len(self.logprobs)

    def chunk(self, finish_reason: FinishReason | None, routing: bytes) -> SampleChunk:
        """What was sampled and not yet sent."""
        sent, self.num_sent = self.num_sent, len(self.logprobs)
        tokens = self.tokens[len(self.request.tokens) + sent :]
        return SampleChunk(tokens, self.logprobs[sent:], self.versions[sent:], finish_reason, routing)


class Event(NamedTuple):
    """A chunk for a job's caller, or why there will be none."""

    job: Job
    outcome: SampleChunk | LudusError
