"""TorchSampler: the Sampler protocol over a continuous batch on the engine's thread.

Here is only what touches asyncio: requests of one turn of the event loop are handed over together, and the results of
one iteration come back in one call per event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Literal

from ludus.engine.torch.batch import ContinuousBatch
from ludus.engine.torch.cache import KVCache
from ludus.engine.torch.job import Event, Job
from ludus.engine.torch.weights import LiveWeights
from ludus.engine.torch.worker import CLOSED, Worker
from ludus.errors import LudusError, ModelCallFailed, UsageError
from ludus.protocols import SampleChunk, SampleRequest, WeightsRef

Outcome = SampleChunk | LudusError


class TorchSampler:
    """Samples from the engine's decoder.

    Args:
        weights: shared with the trainer.
        cache: keys and values.
        max_batch: most requests that run at once.
        deterministic: see `attach`.
        decode: text of token ids; needed for stop strings only.
        num_cores: see `ContinuousBatch`.
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
        self._weights = weights
        self._decode = decode
        self.batch = ContinuousBatch(
            weights, cache, max_batch=max_batch, deterministic=deterministic, decode=decode, num_cores=num_cores
        )
        self._worker: Worker | None = None
        self._arrivals = itertools.count()
        self._inboxes: dict[Job, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Outcome]]] = {}
        self._outboxes: dict[asyncio.AbstractEventLoop, list[Job]] = {}

    @property
    def context(self) -> int:
        """Most tokens of prompt and reply together."""
        return self._weights.decoder.config.max_position_embeddings

    async def sample(self, request: SampleRequest) -> AsyncIterator[SampleChunk]:
        """Continue the tokens; closing the iterator cancels.

        Raises:
            ModelCallFailed: the prompt leaves no room for a reply, or the engine failed.
            UsageError: stop strings without a tokenizer, ids outside of the vocabulary.
            UnknownName: weights that are not here.
        """
        job = self._job(request)
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Outcome] = asyncio.Queue()
        self._inboxes[job] = loop, inbox
        self._hand_over(job, loop)
        ended = False
        try:
            while not ended:
                outcome = await inbox.get()
                ended = isinstance(outcome, LudusError) or outcome.finish_reason is not None
                if isinstance(outcome, LudusError):
                    raise outcome
                yield outcome
        finally:
            del self._inboxes[job]
            if not ended:
                job.cancelled = True
                self._post(partial(self.batch.cancel, job))

    async def publish(self, weights: WeightsRef, when: Literal["drain", "in_flight"] = "drain") -> None:
        """Stamp what is sampled from now on with a new version: the one asked for, or the next.

        The trainer's steps act on the shared weights at once, for requests in flight too; "drain" therefore only delays
        the new stamp, and new requests, until the running ones have ended.
        """
        if self._worker is None:
            raise UsageError("the sampler has no engine")
        publish = partial(self._weights.publish, weights)
        if when == "in_flight":
            await self._worker.run(publish)
            return
        loop = asyncio.get_running_loop()
        drained = asyncio.Event()

        def then() -> None:
            publish()
            _call_soon(loop, drained.set)

        if not self._post(partial(self.batch.drain, then)):
            raise UsageError(CLOSED)
        await drained.wait()

    def attach(self, count: int = 1) -> None:
        """So many more rollouts are live. In deterministic mode the engine steps only while all of them wait on it."""
        self._post(partial(self._attach, count))

    def detach(self, count: int = 1) -> None:
        """So many rollouts have ended; release their sessions first."""
        self._post(partial(self._attach, -count))

    def release(self, session: str) -> None:
        """A session has ended: its cache can go."""
        self._post(partial(self.batch.release, session))

    # --- what the engine calls -------------------------------------------------------------------------------------

    def bind(self, worker: Worker) -> None:
        """Say which thread runs the batch."""
        self._worker = worker

    def step(self) -> None:
        """One iteration; on the engine's thread."""
        self._deliver(self.batch.step())

    def fail(self, error: Exception) -> None:
        """Every request fails with ModelCallFailed; on the engine's thread."""
        self._deliver(self.batch.fail(error))

    # --- inside ----------------------------------------------------------------------------------------------------

    def _job(self, request: SampleRequest) -> Job:
        tokens, sampling = request.tokens, request.sampling
        vocab_size = self._weights.decoder.config.vocab_size
        if not tokens:
            raise UsageError("a request needs at least one token, got none")
        if min(tokens) < 0 or max(tokens) >= vocab_size:
            raise UsageError(f"token ids must be in [0, {vocab_size}), got {min(tokens)} to {max(tokens)}")
        if sampling.stop and self._decode is None:
            raise UsageError("stop strings need a tokenizer: give the engine `decode`, or use stop_token_ids")
        if len(tokens) >= self.context:
            raise ModelCallFailed(
                f"the prompt has {len(tokens)} tokens, the model's context {self.context}: no room for a reply; "
                "shorten the conversation",
                blame="policy",
            )
        limit = self.context if sampling.max_tokens is None else len(tokens) + sampling.max_tokens
        return Job(
            request=request,
            limit=min(limit, self.context),
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**64,
            arrival=next(self._arrivals),
            tokens=list(tokens),
        )

    def _hand_over(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        """Requests that are made before the loop turns again arrive as one batch."""
        outbox = self._outboxes.setdefault(loop, [])
        outbox.append(job)
        if len(outbox) == 1:
            loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs = self._outboxes.pop(loop)
        if not self._post(lambda: self._deliver(self.batch.submit(jobs))):
            self._deliver(Event(job, ModelCallFailed(CLOSED)) for job in jobs)

    def _post(self, function: Callable[[], object]) -> bool:
        if self._worker is None:
            raise UsageError("the sampler has no engine")
        return self._worker.post(function)

    def _attach(self, change: int) -> None:
        self.batch.num_attached += change

    def _deliver(self, events: Iterable[Event]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Outcome], Outcome]]] = {}
        for job, outcome in events:
            address = self._inboxes.get(job)
            if address is not None:
                loop, inbox = address
                by_loop.setdefault(loop, []).append((inbox, outcome))
        for loop, letters in by_loop.items():
            _call_soon(loop, partial(_put_all, letters))


def _put_all(letters: Iterable[tuple[asyncio.Queue[Outcome], Outcome]]) -> None:
    for inbox, outcome in letters:
        inbox.put_nowait(outcome)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop has closed: nobody is left to be told
        pass
