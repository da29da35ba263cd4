"""TorchTrainer: the Trainer protocol on the decoder that the sampler uses.

Data are packed into micro-batches; the head runs only where a log-probability is asked for. Everything sums, so how the
batch is split changes results by rounding only. All work happens on the engine's thread, in order of submission; the
operators of a small model are too short to share among cores, so there each core takes a micro-batch of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ludus.engine.torch.attention import attention_over
from ludus.engine.torch.experts import Routing
from ludus.engine.torch.files import copy_tensors, read_tensors, save_tensors
from ludus.engine.torch.folder import WEIGHTS
from ludus.engine.torch.head import head
from ludus.engine.torch.losses import LossFn, find_loss
from ludus.engine.torch.optimizer import FlatAdamW
from ludus.engine.torch.packing import MicroBatch, check, families, micro_batches, predictions
from ludus.engine.torch.weights import LiveWeights
from ludus.engine.torch.worker import Worker
from ludus.errors import UsageError
from ludus.protocols import AdamW, Checkpoint, Datum, Loss, TrainResult

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Packed tokens of one forward, by device: what the CPU's caches hold, what fills a GPU."""
HEAD_ELEMENTS = 1 << 26
"""Logits kept at once (256 MiB in float32); beyond that the head runs in chunks that are recomputed in the backward."""
SIDE_BY_SIDE_TOKENS = 512
"""Fewest packed tokens that are worth a core of their own."""
ResultT = TypeVar("ResultT")
EMPTY: NDArray[np.float32] = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class _Part:
    """What one micro-batch adds: shape [P] each, and the gradients of all leaves where they weren't added already."""

    batch: MicroBatch
    loss: float
    metrics: dict[str, Tensor]
    logprobs_P: Tensor
    entropies_P: Tensor
    gradients: Sequence[Tensor | None] | None


class TorchTrainer:
    """Trains the engine's decoder in place: all weights, or its adapter.

    Args:
        weights: shared with the sampler.
        worker: the engine's thread.
        micro_batch_tokens: most packed tokens of one forward; None is what suits the device.
        num_threads: on the CPU while training.
        side_by_side: spend the threads on micro-batches, one each, instead of on PyTorch's operators.
        recompute: keep only the inputs of layers for the backward pass, and run them again there.
    """

    def __init__(
        self,
        weights: LiveWeights,
        worker: Worker,
        *,
        micro_batch_tokens: int | None,
        num_threads: int,
        side_by_side: bool,
        recompute: bool = False,
    ) -> None:
        self._weights, self._worker, self._num_threads = weights, worker, num_threads
        self._recompute = recompute
        device = weights.decoder.device.type
        self._micro_batch_tokens = micro_batch_tokens or MICRO_BATCH_TOKENS.get(device, MICRO_BATCH_TOKENS["cpu"])
        self._pool: ThreadPoolExecutor | None = None
        if side_by_side and num_threads > 1:
            self._pool = ThreadPoolExecutor(num_threads, "ludus-torch-trainer", lambda: torch.set_num_threads(1))
        self._optimizer: FlatAdamW | None = None
        self._finite = True

    async def forward(self, data: Sequence[Datum]) -> list[list[float]]:
        """Log-probabilities of each datum's tokens, shape [T] each (entry 0 is 0.0). Raises UsageError."""
        self._check(data)
        return await self._run(lambda: self._forward(data))

    async def forward_backward(self, data: Sequence[Datum], loss: Loss) -> TrainResult:
        """Add the gradient of the summed loss to what is accumulated.

        Raises:
            UnknownName: no such loss, or it has no such parameter.
            UsageError: arrays that are missing or do not line up.
        """
        self._check(data)
        loss_fn, params = find_loss(loss)
        return await self._run(lambda: self._forward_backward(data, loss_fn, Loss(loss.name, params)))

    async def optim_step(self, optimizer: AdamW) -> dict[str, float]:
        """Apply and clear the accumulated gradient; see `FlatAdamW.step` for the metrics."""
        return await self._run(lambda: self._optim_step(optimizer))

    async def reset_optimizer(self) -> None:
        """Forget the moments and what was accumulated."""
        await self._worker.run(lambda: self._moments().forget())

    async def save(self, path: Path) -> Checkpoint:
        """Write model.safetensors (what is trained, in float32), optimizer.safetensors and optimizer.json into `path`."""
        return await self._worker.run(lambda: self._save(path))

    async def load(self, path: Path) -> None:
        """Go on from a saved state; accumulated gradients are dropped. Raises ModelFolderError."""
        await self._worker.run(lambda: self._load(path))

    async def weights_hash(self) -> str:
        """32 hex digits (blake2b) over the bytes of all parameters, an adapter's too, in order of their names."""
        return await self._worker.run(self._weights.hash)

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown()

    async def _run(self, function: Callable[[], ResultT]) -> ResultT:
        """The function's result, computed on the engine's thread with the trainer's number of operator threads."""

        def with_threads() -> ResultT:
            before = torch.get_num_threads()
            torch.set_num_threads(self._num_threads)
            try:
                return function()
            finally:
                torch.set_num_threads(before)

        return await self._worker.run(with_threads)

    # --- on the engine's thread ------------------------------------------------------------------------------------

    def _check(self, data: Sequence[Datum]) -> None:
        config = self._weights.decoder.config
        check(data, config.vocab_size, config.max_position_embeddings, config.routing_width)

    @torch.no_grad()
    def _forward(self, data: Sequence[Datum]) -> list[list[float]]:
        wanted = [predictions(datum, weighted=False) for datum in data]
        results: list[NDArray[np.float32]] = [EMPTY] * len(data)
        bare = [msgspec.structs.replace(datum, arrays={}) for datum in data]
        for batch in self._micro_batches(bare, wanted):
            logprobs_P, _ = self._logprobs(batch)
            _scatter(results, batch, logprobs_P)
        return [[0.0, *logprobs.tolist()] for logprobs in results]

    def _forward_backward(self, data: Sequence[Datum], loss_fn: LossFn, loss: Loss) -> TrainResult:
        wanted = [predictions(datum, weighted=True) for datum in data]
        self._weights.decoder.unpack()
        self._moments()  # the gradient buffer must exist before the first backward
        total, sums = 0.0, dict[str, float]()
        logprobs: list[NDArray[np.float32]] = [EMPTY] * len(data)
        entropies: list[NDArray[np.float32]] = [EMPTY] * len(data)
        batches = self._micro_batches(data, wanted)
        for part in self._map(lambda batch: self._part(batch, loss_fn, loss), batches):
            total += part.loss
            for name, value in part.metrics.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            if part.gradients:
                self._weights.decoder.trained.add_gradients(part.gradients)
            _scatter(logprobs, part.batch, part.logprobs_P)
            _scatter(entropies, part.batch, part.entropies_P)
        self._finite = self._finite and math.isfinite(total)
        return TrainResult(total, sums, np.concatenate([EMPTY, *logprobs]), np.concatenate([EMPTY, *entropies]))

    def _part(self, batch: MicroBatch, loss_fn: LossFn, loss: Loss) -> _Part:
        logprobs_P, entropies_P = self._logprobs(batch)
        loss_sum, metrics = loss_fn(logprobs_P, _Arrays(loss.name, batch.arrays_P), loss.params)
        gradients = None
        if self._pool:  # added in order by one thread, so that the sum has the same bits every time
            gradients = torch.autograd.grad(loss_sum, self._weights.decoder.trained.leaves, allow_unused=True)
        else:
            loss_sum.backward()  # type: ignore[no-untyped-call]
        return _Part(batch, loss_sum.item(), metrics, logprobs_P.detach(), entropies_P, gradients)

    def _micro_batches(self, data: Sequence[Datum], wanted: Sequence[Sequence[int]]) -> list[MicroBatch]:
        """As few micro-batches as memory allows, but one for every core that it is worth."""
        most = self._micro_batch_tokens
        grouped = families(data, wanted, most)
        if self._pool and grouped:
            total = sum(family.num_tokens for family in grouped)
            cores = min(self._num_threads, max(1, total // SIDE_BY_SIDE_TOKENS))
            rounds = math.ceil(total / (cores * most))
            most = math.ceil(total / (cores * rounds)) + max(family.num_tokens for family in grouped)
        return micro_batches(data, wanted, grouped, most, self._weights.decoder.device)

    def _map(self, function: Callable[[MicroBatch], ResultT], batches: Sequence[MicroBatch]) -> Iterable[ResultT]:
        return self._pool.map(function, batches) if self._pool and len(batches) > 1 else map(function, batches)

    def _optim_step(self, settings: AdamW) -> dict[str, float]:
        metrics = self._moments().step(settings, finite=self._finite)
        self._finite = True
        if not metrics["skipped"]:
            self._weights.updated()
        return metrics

    def _save(self, path: Path) -> Checkpoint:
        path.mkdir(parents=True, exist_ok=True)
        save_tensors(self._moments().masters(), path / WEIGHTS)
        self._moments().save(path)
        return Checkpoint(path=path, weights_hash=self._weights.hash())

    def _load(self, path: Path) -> None:
        file = path / WEIGHTS
        found = ((name, tensor, file) for name, tensor in read_tensors(file))
        copy_tensors(found, self._moments().masters(), "what is trained here")
        self._moments().publish()
        self._moments().load(path)
        self._finite = True
        self._weights.updated()

    def _moments(self) -> FlatAdamW:
        """The optimiser, made when first needed: who only samples pays no memory for it."""
        if self._optimizer is None:
            self._optimizer = FlatAdamW(self._weights.decoder.trained)
        return self._optimizer

    def _logprobs(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Log-probabilities and (without gradient) entropies of the predictions asked for, shape [P] each."""
        decoder = self._weights.decoder
        attention = attention_over(batch.segments, decoder.device)
        routing = None
        if batch.routing_TN is not None and decoder.config.experts is not None:
            chosen = decoder.config.experts.num_experts_per_tok
            routing = Routing(batch.routing_TN.long().view(len(batch.routing_TN), -1, chosen))
        recompute = self._recompute and torch.is_grad_enabled()
        hidden_TD = decoder(batch.tokens_T, batch.positions_T, attention, routing=routing, recompute=recompute)
        hidden_PD = hidden_TD[batch.sources_P]
        max_rows = max(1, HEAD_ELEMENTS // decoder.config.vocab_size)
        return head(decoder, hidden_PD, batch.targets_P, batch.temperatures_P, max_rows)


def _scatter(per_datum: list[NDArray[np.float32]], batch: MicroBatch, values_P: Tensor) -> None:
    """Hand a micro-batch's values to their datums."""
    pieces = np.split(values_P.detach().cpu().numpy(), np.cumsum(batch.counts)[:-1])
    for index, piece in zip(batch.data, pieces, strict=True):
        per_datum[index] = piece


class _Arrays(dict[str, Tensor]):
    """A datum's arrays; a missing one is the caller's mistake and is named."""

    def __init__(self, loss: str, arrays: dict[str, Tensor]) -> None:
        super().__init__(arrays)
        self._loss = loss

    def __missing__(self, name: str) -> Tensor:
        raise UsageError(
            f"the loss {self._loss!r} needs the array {name!r} in every datum; got: {', '.join(sorted(self))}"
        )
