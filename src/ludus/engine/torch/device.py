"""Devices by name."""

from __future__ import annotations

import torch

from ludus.errors import UsageError


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
