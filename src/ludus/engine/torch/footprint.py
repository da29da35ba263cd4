"""Footprint: what running a model folder would take on a device, without loading its weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.device import find_device, find_dtype, free_bytes
from ludus.engine.torch.folder import read_config
from ludus.engine.torch.lora import LoraSettings, base_of
from ludus.engine.torch.memory import Memory, active_parameters, memory, num_adapter_parameters, num_parameters
from ludus.engine.torch.trainer import HEAD_ELEMENTS, MICRO_BATCH_TOKENS


@dataclass(frozen=True)
class Footprint:
    """A model on a device."""

    config: DecoderConfig
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, folder: Path, device: str, dtype: str) -> Footprint:
        """From a model or adapter folder. Raises ModelFolderError, UsageError."""
        base = base_of(folder)
        config = DecoderConfig.from_hf(read_config(base), base / "config.json")
        return cls(config, find_dtype(dtype, base), find_device(device))

    @property
    def free_bytes(self) -> int:
        """Memory that the device has left."""
        return free_bytes(self.device)

    def memory(self, lora: LoraSettings | None, *, training: bool, recompute: bool) -> Memory:
        """What an engine needs; see `memory.memory`."""
        return memory(
            self.config, self.dtype, training=training, lora=lora, recompute=recompute,
            micro_batch_tokens=MICRO_BATCH_TOKENS[self.device.type], head_elements=HEAD_ELEMENTS,
        )  # fmt: skip

    def parameters(self, lora: LoraSettings | None) -> tuple[int, int]:
        """Numbers of all parameters and of those that are trained."""
        total = num_parameters(self.config)
        return total, total if lora is None else num_adapter_parameters(self.config, lora)

    def seconds(self, forwards: float) -> float:
        """Time for so many tokens' forwards at the speed of matrix products here, which is measured."""
        size = 1024 if self.device.type == "cpu" else 8192
        matrix = torch.randn(size, size, device=self.device).to(self.dtype)
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            (matrix @ matrix)[0, 0].item()  # waits for the result
            best = min(best, time.perf_counter() - began)
        return 2.0 * active_parameters(self.config) * forwards * best / (2.0 * size**3)
