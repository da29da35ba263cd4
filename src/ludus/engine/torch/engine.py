"""TorchEngine: one decoder in this process, sampled from and trained on one thread.

engine = TorchEngine(Path("models/tiny"))
engine.sampler, engine.trainer      # the two protocols, over the same weights
await engine.publish(WeightsRef())  # after an optimiser step
engine.close()
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from ludus.engine.torch.cache import KVCache
from ludus.engine.torch.device import find_device, find_dtype, free_bytes, machine_bytes
from ludus.engine.torch.folder import copy_tokenizer, load_decoder, save_decoder
from ludus.engine.torch.kernels import load_kernels
from ludus.engine.torch.lora import Adapter, LoraSettings, base_of, load_adapter
from ludus.engine.torch.memory import packed_bytes
from ludus.engine.torch.packed import can_pack
from ludus.engine.torch.sampler import TorchSampler
from ludus.engine.torch.trainer import TorchTrainer
from ludus.engine.torch.weights import LiveWeights
from ludus.engine.torch.worker import Worker
from ludus.errors import ModelCallFailed, UsageError
from ludus.protocols import WeightsRef

SMALL_MODEL = 50_000_000
"""Parameters up to which an operator gets one thread: it takes microseconds, less than it takes to wake a second one.
The other cores then take a share of the batch each, in sampling as in training."""
PACKED_SHARE = 8
"""Packed copies of the matrices take at most one part in so many of the machine's memory. Not of what is free:
whether a matrix is packed shows in last bits."""


class TorchEngine:
    """Loads a model folder once; `sampler` and `trainer` share its weights.

    Args:
        folder: a model in Hugging Face's format, or a LoRA adapter in PEFT's, whose base is where it says.
        dtype: "float32", "bfloat16", or "auto": what the weights are stored in, and float32 where `deterministic`.
        lora: train a new adapter of this kind, rather than all weights.
        seed: of a new adapter.
        recompute: trade time for memory in training; see `TorchTrainer`.
        device: "auto" is CUDA where there is one, else the CPU.
        threads: on the CPU; None is all cores.
        deterministic: batches are composed by `request.order` alone and step only when every attached rollout waits
            (`sampler.attach`), so that equal requests give equal bits, on one machine with one number of threads.
        max_batch: most requests sampled at once.
        cache_bytes: memory budget of the key-value cache; None is a quarter of what is free.
        micro_batch_tokens: most tokens of one training forward; None is what suits the device.
        decode: text of token ids, for stop strings.

    Raises:
        ModelFolderError: the folder can't be loaded.
        UsageError: the device does not exist; an adapter is asked for on top of an adapter.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        lora: LoraSettings | None = None,
        seed: int = 0,
        recompute: bool = False,
        threads: int | None = None,
        deterministic: bool = False,
        max_batch: int = 256,
        cache_bytes: int | None = None,
        micro_batch_tokens: int | None = None,
        decode: Callable[[list[int]], str] | None = None,
    ) -> None:
        self.folder = folder
        self.device = find_device(device)
        self._base = base_of(folder)
        kind = "float32" if dtype == "auto" and deterministic else dtype
        self.decoder = load_decoder(self._base, self.device, find_dtype(kind, self._base))
        if self._base != folder:
            if lora is not None:
                raise UsageError(f"{folder} is an adapter already, and goes on being trained: leave LoRA settings out")
            self.decoder.adapt(load_adapter(self.decoder, folder))
        elif lora is not None:
            adapter = Adapter(self.decoder, lora)
            adapter.initialise(seed)
            self.decoder.adapt(adapter)
        weights_N = self.decoder.flat.values_N
        copies = packed_bytes(self.decoder.config, weights_N.dtype)
        packing = can_pack(self.device) and PACKED_SHARE * copies <= machine_bytes()
        self.decoder.accelerate(load_kernels(self.device, weights_N.dtype), packing=packing)
        self._weights = LiveWeights(self.decoder)
        budget = free_bytes(self.device) // 4 if cache_bytes is None else cache_bytes
        cache = KVCache(self.decoder.config, self.device, weights_N.dtype, budget)
        training_threads = threads or _num_cores()
        small = self.device.type == "cpu" and weights_N.numel() <= SMALL_MODEL
        sampling_threads = 1 if small else training_threads
        self.sampler = TorchSampler(
            self._weights,
            cache,
            max_batch=max_batch,
            deterministic=deterministic,
            decode=decode,
            num_cores=training_threads if small else 1,
        )

        def start() -> None:
            self.decoder.pack()
            torch.set_num_threads(sampling_threads)  # on the worker's thread: OpenMP counts threads per calling thread
            if deterministic and self.device.type == "cuda":
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True)

        self._worker = Worker(start, self.sampler.step, self.sampler.batch.ready, self.sampler.fail)
        self.sampler.bind(self._worker)
        self.trainer = TorchTrainer(
            self._weights,
            self._worker,
            micro_batch_tokens=micro_batch_tokens,
            num_threads=training_threads,
            side_by_side=small,
            recompute=recompute,
        )

    @property
    def version(self) -> int:
        """Of the published weights."""
        return self._weights.version

    async def publish(self, weights: WeightsRef, when: Literal["drain", "in_flight"] = "drain") -> None:
        """See `TorchSampler.publish`."""
        await self.sampler.publish(weights, when)

    async def export(self, folder: Path) -> None:
        """Write the weights as they are now, with this model's tokenizer and chat template: a model folder, or a PEFT
        adapter folder that names its base."""

        def write() -> None:
            if self.decoder.adapter is None:
                save_decoder(self.decoder, folder, tokenizer_from=self._base)
            else:
                self.decoder.adapter.save(folder, base=str(self._base.resolve()))
                copy_tokenizer(self._base, folder)

        await self._worker.run(write)

    def close(self) -> None:
        """End the thread; requests that still wait fail with ModelCallFailed."""
        self._worker.close(lambda: self.sampler.fail(ModelCallFailed("the engine was closed")))
        self.trainer.close()
        self.sampler.batch.close()


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
