"""Tensors and JSON on disk: read, write, and say exactly what is wrong with a bad file.

Left out: pickled weights, which run code when read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ludus.errors import ModelFolderError

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file. Raises ModelFolderError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing; a model folder needs it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ModelFolderError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a safetensors file, one at a time. Raises ModelFolderError."""
    if not path.is_file():
        raise ModelFolderError(f"{path} is missing; expected a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict: it has no iterator)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ModelFolderError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}; was the copy cut short?"
        ) from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; tensors may be views of one buffer. Raises OSError."""
    try:
        save_file({name: tensor.cpu().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error


def copy_tensors(found: Iterable[tuple[str, Tensor, Path]], targets: Mapping[str, Tensor], kind: str) -> None:
    """Copy tensors into those of the same names, which must all be found.

    Args:
        found: names, tensors and the files that they are in.
        targets: where to.
        kind: what has parameters of these names, for error texts.

    Raises:
        ModelFolderError: a tensor is missing, unexpected, of the wrong shape, not of floats, or not finite.
    """
    missing, folder = set(targets), Path()
    for name, tensor, file in found:
        folder, target = file.parent, targets.get(name)
        if target is None:
            raise ModelFolderError(
                f"{file}: unexpected tensor {name!r}; {kind} has no such parameter: settings and weights do not belong "
                "together"
            )
        if tensor.shape != target.shape:
            raise ModelFolderError(
                f"{file}: tensor {name!r}: expected shape {list(target.shape)}, got {list(tensor.shape)}"
            )
        if tensor.dtype not in FLOATS:
            raise ModelFolderError(
                f"{file}: tensor {name!r} has dtype {tensor.dtype}; quantised weights are not supported"
            )
        if not torch.isfinite(tensor).all():
            raise ModelFolderError(f"{file}: tensor {name!r} holds NaN or infinite values; use an earlier checkpoint")
        target.copy_(tensor)
        missing.discard(name)
    if missing:
        first = min(missing)
        raise ModelFolderError(
            f"{folder}: tensor {first!r} of shape {list(targets[first].shape)} is missing from the weights "
            f"({len(missing)} missing in all)"
        )


def tensors_hash(named: Iterable[tuple[str, Tensor]], seed: str = "") -> str:
    """32 hex digits (blake2b) over the bytes of tensors, in order of their names; `seed` goes before."""
    digest = hashlib.blake2b(seed.encode(), digest_size=16)
    for name, tensor in sorted(named, key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
