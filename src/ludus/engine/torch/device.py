"""Devices and number formats by name."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ludus.engine.torch.folder import read_config
from ludus.errors import UnknownName, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STORED = {**DTYPES, "float16": torch.bfloat16}
"""What weights stored in a format are computed in."""


def find_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one, else the CPU. Raises UsageError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; expected auto, cpu or cuda") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} was asked for, but PyTorch finds no CUDA device of that number; use device='cpu'"
        )
    return device


def find_dtype(name: str, folder: Path) -> torch.dtype:
    """The number format of a name; "auto" is the one that a model folder's weights are stored in. Raises UnknownName."""
    if name == "auto":
        values = read_config(folder)
        return STORED.get(str(values.get("dtype") or values.get("torch_dtype")), torch.float32)
    if name not in DTYPES:
        raise UnknownName("dtype", name, ["auto", *DTYPES])
    return DTYPES[name]


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # macOS does not say how much is free
        return machine_bytes() // 2


def machine_bytes() -> int:
    """Memory of the machine, the same whenever it is asked."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
