"""LoRA: low-rank additions to a frozen decoder's projections (arXiv 2106.09685), in PEFT's format on disk.

y = W x + alpha / rank * B A x, with A random and B zero at the start. Sampling and training compute the sum in the same
way: nothing is merged, so no copy of the weights is needed and none can go stale. Left out: adapters on embeddings,
norms and experts, dropout, and PEFT's variants (DoRA, rsLoRA with its other scale is read).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ludus.engine.torch.files import copy_tensors, read_json, read_tensors, save_tensors
from ludus.engine.torch.flat import FlatParameters
from ludus.errors import ModelFolderError, UnknownName, UsageError

if TYPE_CHECKING:
    from ludus.engine.torch.decoder import Decoder
    from ludus.engine.torch.projection import Projection

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the names of parameters."""


@dataclass(frozen=True)
class LoraSettings:
    """Size of an adapter, and which projections have one."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)."""

    def __post_init__(self) -> None:
        for target in self.targets:
            if target not in TARGETS:
                raise UnknownName("LoRA target", target, TARGETS)
        if self.rank < 1 or not self.targets:
            raise UsageError(
                f"LoRA needs a rank of at least 1 and a target, got rank {self.rank}, targets {self.targets}"
            )

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    @classmethod
    def read(cls, folder: Path) -> LoraSettings:
        """From a PEFT adapter folder. Raises ModelFolderError."""
        file = folder / ADAPTER_CONFIG
        values = read_json(file)
        found: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "peft_type": (values.get("peft_type"), ("LORA",)),
            "bias": (values.get("bias", "none"), ("none",)),
            "use_dora": (values.get("use_dora", False), (False, None)),
            "modules_to_save": (values.get("modules_to_save"), (None, [])),
            "rank_pattern": (values.get("rank_pattern") or {}, ({},)),
            "alpha_pattern": (values.get("alpha_pattern") or {}, ({},)),
            "fan_in_fan_out": (values.get("fan_in_fan_out", False), (False, None)),
        }
        for key, (value, supported) in found.items():
            if value not in supported:
                raise ModelFolderError(f"{file}: {key} = {value!r} is not supported (supported: {supported[0]!r})")
        targets, known = values.get("target_modules"), ", ".join(TARGETS)
        if not isinstance(targets, list) or not all(target in TARGETS for target in targets):
            raise ModelFolderError(f"{file}: target_modules: expected a list of some of {known}; got {targets!r}")
        rank, alpha = values.get("r"), values.get("lora_alpha")
        if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
            raise ModelFolderError(
                f"{file}: expected a rank >= 1 under 'r' and a number under 'lora_alpha', got {rank!r}, {alpha!r}"
            )
        ordered = tuple(target for target in TARGETS if target in targets)
        return cls(rank, float(alpha), ordered, bool(values.get("use_rslora", False)))

    def to_peft(self, base: str) -> dict[str, Any]:
        """The content of adapter_config.json."""
        alpha = int(self.alpha) if self.alpha == int(self.alpha) else self.alpha
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "target_modules": list(self.targets),
            "bias": "none",
            "use_rslora": self.rank_stabilised,
            "inference_mode": True,
        }


class Added:
    """What an adapter adds to one projection.

    Args:
        down: A of the layers that have one, joined: [R * layers, inputs].
        parts: by layer of the projection, its number of outputs and its B [outputs, R], or None.
        scale: alpha / rank.
    """

    def __init__(self, down: nn.Parameter, parts: Sequence[tuple[int, nn.Parameter | None]], scale: float) -> None:
        self._down, self._parts, self._scale = down, parts, scale
        self._num_up = sum(up is not None for _, up in parts)

    def __call__(self, x_TD: Tensor, adapted_T1: Tensor | None) -> Tensor:
        h_TR = F.linear(x_TD, self._down.to(x_TD.dtype)) * self._scale
        if adapted_T1 is not None:
            h_TR = h_TR * adapted_T1
        lows = iter(h_TR.chunk(self._num_up, dim=-1))
        pieces = [
            x_TD.new_zeros(len(x_TD), outputs) if up is None else F.linear(next(lows), up.to(x_TD.dtype))
            for outputs, up in self._parts
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


class Adapter:
    """An adapter of a decoder; float32 whatever the decoder is.

    Args:
        decoder: whose projections it adds to.
        settings: rank, scale and targets.

    Raises:
        UsageError: the decoder has no projection of a target's name.
    """

    def __init__(self, decoder: Decoder, settings: LoraSettings) -> None:
        self.settings = settings
        root = nn.Module()
        targeted: dict[str, list[str]] = {}
        missing = set(settings.targets)
        with torch.device("meta"):
            for projection in decoder.projections:
                for path, outputs in zip(projection.paths, projection.outputs, strict=True):
                    if path.rpartition(".")[2] in settings.targets:
                        missing.discard(path.rpartition(".")[2])
                        targeted.setdefault(projection.paths[0], []).append(path)
                        _add(root, f"{path}.lora_A", nn.Linear(projection.inputs, settings.rank, bias=False))
                        _add(root, f"{path}.lora_B", nn.Linear(settings.rank, outputs, bias=False))
        if missing:
            raise UsageError(
                f"this model has no projection {min(missing)!r} that LoRA could act on (experts have none)"
            )
        fused = [tuple(f"{path}.lora_A.weight" for path in paths) for paths in targeted.values()]
        self.root = root
        self.flat = FlatParameters(root, fused, decoder.device, torch.float32)
        self._targeted = targeted

    def of(self, projection: Projection) -> Added | None:
        """What it adds to a projection of the decoder."""
        paths = self._targeted.get(projection.paths[0])
        if paths is None:
            return None
        down = self.flat.fuse([f"{path}.lora_A.weight" for path in paths])
        parts = [
            (outputs, self.root.get_submodule(f"{path}.lora_B").weight if path in paths else None)
            for path, outputs in zip(projection.paths, projection.outputs, strict=True)
        ]
        return Added(down, parts, self.settings.scale)  # type: ignore[arg-type]

    def initialise(self, seed: int) -> None:
        """A uniform as PEFT's (Kaiming with a = sqrt(5): within 1 / sqrt(inputs)), B zero: nothing is added yet."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in sorted(self.root.named_parameters()):
            values = parameter.detach()
            if "lora_B" in name:
                values.zero_()
            else:
                bound = 1 / math.sqrt(values.shape[1])
                values.copy_((torch.rand(values.shape, generator=generator) * 2 - 1) * bound)

    def save(self, folder: Path, base: str) -> None:
        """Write a PEFT adapter folder, that `peft` and vLLM load; `base` names the model it belongs to."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {PREFIX + name: parameter.detach() for name, parameter in self.root.named_parameters()}
        save_tensors(tensors, folder / ADAPTER_WEIGHTS)
        text = json.dumps(self.settings.to_peft(base), indent=2) + "\n"
        (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read the tensors of a PEFT adapter folder, in place. Raises ModelFolderError."""
        file = folder / ADAPTER_WEIGHTS
        found = ((name.removeprefix(PREFIX), tensor, file) for name, tensor in read_tensors(file))
        targets = {name: parameter.detach() for name, parameter in self.root.named_parameters()}
        copy_tensors(found, targets, f"an adapter of rank {self.settings.rank} on {', '.join(self.settings.targets)}")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_of(folder: Path) -> Path:
    """The model folder that an adapter folder names as its base; any other folder itself. Raises ModelFolderError."""
    if not is_adapter(folder):
        return folder
    named = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelFolderError(
            f"{folder / ADAPTER_CONFIG}: expected the base model's folder under base_model_name_or_path"
        )
    for base in (Path(named), folder / named):
        if (base / "config.json").is_file():
            return base
    raise ModelFolderError(
        f"{folder / ADAPTER_CONFIG}: its base model {named!r} is not here; put the folder there, or change the path"
    )


def load_adapter(decoder: Decoder, folder: Path) -> Adapter:
    """The adapter of a PEFT folder, for this decoder. Raises ModelFolderError."""
    settings = LoraSettings.read(folder)
    try:
        adapter = Adapter(decoder, settings)
    except UsageError as error:
        raise ModelFolderError(f"{folder}: {error}") from None
    adapter.load(folder)
    return adapter


def _add(root: nn.Module, path: str, leaf: nn.Module) -> None:
    *parents, name = path.split(".")
    module = root
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    module.add_module(name, leaf)
