"""Operators: what a layer computes between its matrix products.

PyTorch's are here, for training and for every device; those of `kernels.py` do the same on a CPU, outside of training,
in one pass over memory each.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Operators(Protocol):
    """All return new tensors of the type of their first argument."""

    def rms_norm(self, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""
        ...

    def rotate(self, x_THD: Tensor, scale_HD: Tensor | None, eps: float, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
        """Heads at their positions: x * cos + swap_halves(x) * sin, after a norm where there are scales.

        That is Hugging Face's layout of rotary positions, on halves, not interleaved.
        """
        ...

    def swiglu(self, gate_up_TF: Tensor) -> Tensor:
        """silu(gate) * up, of gates and ups side by side."""
        ...


class TorchOperators:
    """By PyTorch, which differentiates through them."""

    def rms_norm(self, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """See `Operators`."""
        return F.rms_norm(x_TD, weight_D.shape, weight_D, eps)

    def rotate(self, x_THD: Tensor, scale_HD: Tensor | None, eps: float, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
        """See `Operators`."""
        if scale_HD is not None:
            x_THD = F.rms_norm(x_THD, x_THD.shape[-1:], None, eps) * scale_HD
        first, second = x_THD.chunk(2, dim=-1)
        return torch.addcmul(x_THD * cos_T1D, torch.cat((second, first), dim=-1), sin_T1D)

    def swiglu(self, gate_up_TF: Tensor) -> Tensor:
        """See `Operators`."""
        gate, up = gate_up_TF.chunk(2, dim=-1)
        return F.silu(gate) * up
