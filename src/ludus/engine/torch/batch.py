"""ContinuousBatch: the sampler's inner loop, on the engine's thread alone.

Every iteration runs one packed forward over the new tokens of all requests, prompts of arrivals and last tokens of the
running alike, and draws one token for each. Requests join at any iteration; finished ones leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from ludus.engine.torch.cache import KVCache
from ludus.engine.torch.cached import Span
from ludus.engine.torch.iteration import Drawn, Iteration, Work
from ludus.engine.torch.job import Event, Job
from ludus.engine.torch.weights import LiveWeights
from ludus.errors import LudusError, ModelCallFailed, UsageError
from ludus.types import FinishReason

PREFILL_CHUNK = 1024
"""Most new tokens of one request in one iteration."""
ITERATION_TOKENS = 8192
"""Most new tokens of all requests in one iteration."""
SIDE_BY_SIDE_TOKENS = 32
"""Fewest new tokens of one iteration that are worth a core of their own."""
STOP_WINDOW = 8
"""Tokens decoded beyond those a stop string could span, for characters that are cut in two."""


class ContinuousBatch:
    """Requests that wait and requests that run.

    Args:
        weights: sampled from.
        cache: keys and values.
        max_batch: most requests that run at once.
        deterministic: order arrivals by `request.order` and step only when `num_attached` requests are here, so that
            the composition of every batch is a function of the requests alone.
        decode: text of token ids, for stop strings.
        num_cores: run so many forwards side by side, each over a share of the requests; 1 where PyTorch's operators
            use the cores themselves.
    """

    def __init__(
        self,
        weights: LiveWeights,
        cache: KVCache,
        *,
        max_batch: int,
        deterministic: bool,
        decode: Callable[[list[int]], str] | None,
        num_cores: int = 1,
    ) -> None:
        self._weights, self._cache = weights, cache
        # which core runs what would change last bits with the number of cores
        self._num_cores = 1 if deterministic else num_cores
        self._pool: ThreadPoolExecutor | None = None
        if self._num_cores > 1:
            self._pool = ThreadPoolExecutor(self._num_cores, "ludus-torch-sampler", lambda: torch.set_num_threads(1))
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

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown()

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
        return events + self._advance(self._forward())

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

    def _forward(self) -> list[Drawn]:
        """The new tokens of all requests through the decoder: by core, in packed order, what each drew."""
        jobs, spans = self._plan()
        self._cache.copy_prefixes()
        parts = [
            Iteration(self._weights, self._cache, part) for part in self._split(list(zip(jobs, spans, strict=True)))
        ]
        results = (
            list(self._pool.map(Iteration.run, parts)) if self._pool and len(parts) > 1 else [p.run() for p in parts]
        )
        self._mark_cached(jobs, spans)
        return [drawn for result in results for drawn in result]

    def _split(self, work: list[Work]) -> list[list[Work]]:
        """Shares of equal numbers of new tokens, one for each core that they are worth; neighbours in the cache stay
        together."""
        total = sum(span.count for _, span in work)
        num_parts = min(self._num_cores, total // SIDE_BY_SIDE_TOKENS)
        if num_parts < 2:
            return [work] if work else []
        work.sort(key=lambda item: item[1].slot)
        parts: list[list[Work]] = [[] for _ in range(num_parts)]
        done = 0
        for item in work:
            parts[min(num_parts - 1, done * num_parts // total)].append(item)
            done += item[1].count
        return [part for part in parts if part]

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

    def _advance(self, drawn: Sequence[Drawn]) -> list[Event]:
        events = []
        finished = False
        for job, token, logprob in drawn:
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
