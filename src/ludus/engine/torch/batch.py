"""ContinuousBatch: the sampler's inner loop, on the engine's thread alone.

Every iteration runs one packed forward over the new tokens of all requests, prompts of arrivals and last tokens of the
running alike, and draws one token for each. Requests join at any iteration; finished ones leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ludus.engine.torch.cache import KVCache, Slot
from ludus.engine.torch.cached import CachedAttention, Span, arrange
from ludus.engine.torch.draw import draw, uniforms
from ludus.engine.torch.experts import Routing
from ludus.engine.torch.weights import LiveWeights
from ludus.errors import LudusError, ModelCallFailed, UsageError
from ludus.protocols import BASE, SampleChunk, SampleRequest
from ludus.types import FinishReason

PREFILL_CHUNK = 1024
"""Most new tokens of one request in one iteration."""
ITERATION_TOKENS = 8192
"""Most new tokens of all requests in one iteration."""
STOP_WINDOW = 8
"""Tokens decoded beyond those a stop string could span, for characters that are cut in two."""


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


class ContinuousBatch:
    """Requests that wait and requests that run.

    Args:
        weights: sampled from.
        cache: keys and values.
        max_batch: most requests that run at once.
        deterministic: order arrivals by `request.order` and step only when `num_attached` requests are here, so that
            the composition of every batch is a function of the requests alone.
        decode: text of token ids, for stop strings.
    """

    def __init__(
        self,
        weights: LiveWeights,
        cache: KVCache,
        *,
        max_batch: int,
        deterministic: bool,
        decode: Callable[[list[int]], str] | None,
    ) -> None:
        self._weights, self._cache = weights, cache
        self._max_batch, self._deterministic, self._decode = max_batch, deterministic, decode
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._drains: list[Callable[[], object]] = []
        self.num_attached = 0

    def submit(self, jobs: Sequence[Job]) -> list[Event]:
        """Let requests wait for their turn; those that name weights that are not here fail at once."""
        events = []
        for job in jobs:
            try:
                self._weights.check(job.request.weights)
            except LudusError as error:
                events.append(Event(job, error))
            else:
                if not job.cancelled:
                    self._waiting.append(job)
        return events

    def cancel(self, job: Job) -> None:
        """Drop a request; its cache stays warm."""
        job.cancelled = True
        if job in self._running:
            self._running.remove(job)
            self._park(job)
        elif job in self._waiting:
            self._waiting.remove(job)

    def release(self, session: str) -> None:
        """Forget the cache of a session that has ended."""
        self._cache.release(session)

    def drain(self, then: Callable[[], object]) -> None:
        """Call `then` when the running requests have ended; nobody else starts before."""
        self._drains.append(then)

    def ready(self) -> bool:
        """Whether there is something to do."""
        if self._drains and not self._running:
            return True
        present = len(self._running) + len(self._waiting)
        return present > 0 and (not self._deterministic or present >= self.num_attached)

    def fail(self, error: Exception) -> list[Event]:
        """Give up every request and the cache, after an error that leaves their state unknown."""
        jobs = self._running + self._waiting
        self._running, self._waiting = [], []
        self._cache.clear()
        self._end_drains()
        text = f"the engine failed: {type(error).__name__}: {error}"
        return [Event(job, _caused(ModelCallFailed(text), error)) for job in jobs]

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit, run one forward, draw a token for every request whose prompt is done."""
        if self._deterministic and len(self._running) + len(self._waiting) > self.num_attached:
            return self.fail(UsageError("deterministic = true takes one model call at a time from each rollout"))
        if not self._running:
            self._end_drains()
        if not self._drains:
            self._admit()
        events = self._make_room()
        if not self._running:
            return events
        drawn, tokens, logprobs = self._forward()
        return events + self._advance(drawn, tokens, logprobs)

    def _end_drains(self) -> None:
        drains, self._drains = self._drains, []
        for then in drains:
            then()

    def _admit(self) -> None:
        if self._deterministic:
            self._waiting.sort(key=lambda job: (_sortable(job.request.order), job.arrival))
        waiting: list[Job] = []
        for job in self._waiting:
            if len(self._running) == self._max_batch:
                waiting.append(job)
                continue
            job.slot = self._cache.acquire(job.request.session, job.tokens, self._weights.key(job.request.weights))
            (self._running if job.slot else waiting).append(job)
        self._waiting = waiting

    def _make_room(self) -> list[Event]:
        """Length for every running request; where memory is short the latest wait again, and compute anew later."""
        events = []
        while self._running and not self._cache.reserve(max(len(job.tokens) for job in self._running)):
            job = self._running.pop()
            self._free(job)
            if self._running:
                self._waiting.insert(0, job)
            else:
                text = f"the key-value cache's memory budget holds fewer than the {len(job.tokens)} tokens of a request"
                events.append(Event(job, ModelCallFailed(f"{text}; raise `cache_bytes`")))
        if not self._running and self._waiting and not events:
            job = self._waiting.pop(0)
            events.append(
                Event(job, ModelCallFailed("the key-value cache's memory budget holds no slot; raise `cache_bytes`"))
            )
        return events

    def _forward(self) -> tuple[list[Job], list[int], list[float]]:
        """One packed forward: the jobs that get a token, in packed order, their tokens and log-probabilities."""
        jobs, spans = self._plan()
        groups = arrange(spans)
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        drawn: list[Job] = []
        last: list[int] = []
        for index in (i for group in groups for i in group):
            job, span = jobs[index], spans[index]
            end = span.start + span.count
            tokens += job.tokens[span.start : end]
            positions += range(span.start, end)
            slots += [span.slot] * span.count
            if end == len(job.tokens):
                drawn.append(job)
                last.append(len(tokens) - 1)
        device = self._weights.decoder.device
        packed = torch.tensor([tokens, positions, slots], device=device)
        attention = CachedAttention(self._cache, [[spans[i] for i in group] for group in groups], packed[2], packed[1])
        self._cache.copy_prefixes()
        decoder = self._weights.decoder
        routing = Routing() if decoder.config.experts else None
        adapted_T = self._adapted([(jobs[i], spans[i]) for group in groups for i in group])
        hidden_TD = decoder(packed[0], packed[1], attention, adapted_T=adapted_T, routing=routing)
        if routing is not None:
            self._cache.routing[packed[2], packed[1]] = routing.chosen_TLK.flatten(1).to(torch.int16)
        self._mark_cached(jobs, spans)
        if not drawn:
            return [], [], []
        hidden_BD = hidden_TD if len(last) == len(tokens) else hidden_TD[torch.tensor(last, device=device)]
        return drawn, *self._draw(drawn, hidden_BD)

    def _adapted(self, packed: Sequence[tuple[Job, Span]]) -> Tensor | None:
        """1 for new tokens that the adapter acts on, 0 for those of requests to the base; None where all are alike."""
        decoder = self._weights.decoder
        if decoder.adapter is None or all(job.request.weights.name != BASE for job, _ in packed):
            return None
        flags = [float(job.request.weights.name != BASE) for job, span in packed for _ in range(span.count)]
        return torch.tensor(flags, device=decoder.device)

    def _plan(self) -> tuple[list[Job], list[Span]]:
        """Which tokens of whom this iteration computes."""
        jobs, spans, budget = [], [], ITERATION_TOKENS
        for job in self._running:
            slot = job.slot
            assert slot is not None  # every running job has one
            count = min(len(job.tokens) - slot.num_cached, PREFILL_CHUNK, budget)
            if count:
                jobs.append(job)
                spans.append(Span(slot.index, slot.num_cached, count))
                budget -= count
        return jobs, spans

    def _mark_cached(self, jobs: Sequence[Job], spans: Sequence[Span]) -> None:
        for job, span in zip(jobs, spans, strict=True):
            assert job.slot is not None  # every running job has one
            job.slot.num_cached = span.start + span.count
            if job.slot.num_cached == len(job.request.tokens):
                self._cache.filled(job.slot)

    def _draw(self, jobs: Sequence[Job], hidden_BD: Tensor) -> tuple[list[int], list[float]]:
        decoder = self._weights.decoder
        uniforms_B = uniforms([job.seed for job in jobs], [job.num_sampled for job in jobs])
        tokens_B, logprobs_B = draw(
            decoder.logits(hidden_BD),
            [job.request.sampling for job in jobs],
            torch.from_numpy(uniforms_B).to(decoder.device),
        )
        logprobs: list[float] = logprobs_B.tolist()
        if not all(logprob > float("-inf") for logprob in logprobs):
            raise FloatingPointError("the weights give logits that are not finite; load an earlier checkpoint")
        return tokens_B.tolist(), logprobs

    def _advance(self, jobs: Sequence[Job], tokens: Sequence[int], logprobs: Sequence[float]) -> list[Event]:
        events = []
        finished = False
        for job, token, logprob in zip(jobs, tokens, logprobs, strict=True):
            job.tokens.append(token)
            job.logprobs.append(logprob)
            job.versions.append(self._weights.stamp(job.request.weights))
            reason = self._finish_reason(job, token)
            routing = b""
            if reason is not None:
                routing = self._routing_of(job)
                self._park(job)
                finished = True
            if reason is not None or job.request.stream:
                events.append(Event(job, job.chunk(reason, routing)))
        if finished:
            self._running = [job for job in self._running if job.slot is not None]
        return events

    def _routing_of(self, job: Job) -> bytes:
        """See `SampleChunk.routing`."""
        if self._weights.decoder.config.experts is None or job.slot is None:
            return b""
        return self._cache.routing[job.slot.index, : job.slot.num_cached].cpu().numpy().astype("<i2").tobytes()

    def _finish_reason(self, job: Job, token: int) -> FinishReason | None:
        sampling = job.request.sampling
        if token in sampling.stop_token_ids or (sampling.stop and self._stopped(job)):
            return "stop"
        return "length" if len(job.tokens) >= job.limit else None

    def _stopped(self, job: Job) -> bool:
        """Whether the end of the reply contains a stop string; a token is at least one byte of it."""
        stops = job.request.sampling.stop
        window = min(job.num_sampled, max(len(stop.encode()) for stop in stops) + STOP_WINDOW)
        assert self._decode is not None  # checked where the request came in
        text = self._decode(job.tokens[-window:])
        return any(stop in text for stop in stops)

    def _park(self, job: Job) -> None:
        if job.slot is not None:
            self._cache.park(job.slot)
            job.slot = None

    def _free(self, job: Job) -> None:
        if job.slot is not None:
            self._cache.free(job.slot)
            job.slot = None


def _sortable(order: tuple[int | str, ...]) -> list[tuple[bool, int, str]]:
    """Numbers before text, place by place."""
    return [(True, 0, part) if isinstance(part, str) else (False, part, "") for part in order]


def _caused(failure: ModelCallFailed, cause: Exception) -> ModelCallFailed:
    failure.__cause__ = cause
    return failure
