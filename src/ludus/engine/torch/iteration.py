"""Iteration: one packed forward over new tokens of several requests, and one token drawn for each whose prompt is done.

Several iterations may run side by side, on threads of their own, over requests that share no slot of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ludus.engine.torch.cache import KVCache
from ludus.engine.torch.cached import CachedAttention, Span, arrange
from ludus.engine.torch.draw import draw, uniforms
from ludus.engine.torch.experts import Routing
from ludus.engine.torch.job import Job
from ludus.engine.torch.weights import LiveWeights
from ludus.protocols import BASE

Work = tuple[Job, Span]
"""A request and which of its tokens to run."""


class Drawn(NamedTuple):
    """A request's next token."""

    job: Job
    token: int
    logprob: float


class Iteration:
    """A share of the batch.

    Args:
        weights: sampled from.
        cache: holds room for every span.
        work: in any order.
    """

    def __init__(self, weights: LiveWeights, cache: KVCache, work: Sequence[Work]) -> None:
        self._weights, self._cache = weights, cache
        groups = arrange([span for _, span in work], kernels=weights.decoder.kernels is not None)
        self._groups = [[work[i][1] for i in group] for group in groups]
        self._packed = [work[i] for group in groups for i in group]

    @torch.inference_mode()
    def run(self) -> list[Drawn]:
        """Fill the cache and draw, in packed order. Raises FloatingPointError for weights that are not finite."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        jobs: list[Job] = []
        last: list[int] = []
        for job, span in self._packed:
            end = span.start + span.count
            tokens += job.tokens[span.start : end]
            positions += range(span.start, end)
            slots += [span.slot] * span.count
            if end == len(job.tokens):
                jobs.append(job)
                last.append(len(tokens) - 1)
        decoder = self._weights.decoder
        packed = torch.tensor([tokens, positions, slots], device=decoder.device)
        attention = CachedAttention(self._cache, self._groups, packed[2], packed[1], decoder.kernels)
        routing = Routing() if decoder.config.experts else None
        hidden_TD = decoder(packed[0], packed[1], attention, adapted_T=self._adapted(), routing=routing)
        if routing is not None:
            self._cache.routing[packed[2], packed[1]] = routing.chosen_TLK.flatten(1).to(torch.int16)
        if not jobs:
            return []
        hidden_BD = hidden_TD if len(last) == len(tokens) else hidden_TD[torch.tensor(last, device=decoder.device)]
        return self._draw(jobs, hidden_BD)

    def _adapted(self) -> Tensor | None:
        """1 for new tokens that the adapter acts on, 0 for those of requests to the base; None where all are adapted."""
        decoder = self._weights.decoder
        if decoder.adapter is None or all(job.request.weights.name != BASE for job, _ in self._packed):
            return None
        flags = [float(job.request.weights.name != BASE) for job, span in self._packed for _ in range(span.count)]
        return torch.tensor(flags, device=decoder.device)

    def _draw(self, jobs: Sequence[Job], hidden_BD: Tensor) -> list[Drawn]:
        decoder = self._weights.decoder
        uniforms_B = uniforms([job.seed for job in jobs], [job.num_sampled for job in jobs])
        tokens_B, logprobs_B = draw(
            decoder.logits(hidden_BD),
            [job.request.sampling for job in jobs],
            torch.from_numpy(uniforms_B).to(decoder.device),
            decoder.kernels,
        )
        logprobs: list[float] = logprobs_B.tolist()
        if not all(logprob > float("-inf") for logprob in logprobs):
            raise FloatingPointError("the weights give logits that are not finite; load an earlier checkpoint")
        return [Drawn(*drawn) for drawn in zip(jobs, tokens_B.tolist(), logprobs, strict=True)]
