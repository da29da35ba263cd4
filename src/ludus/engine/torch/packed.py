"""PackedMatrix: a copy of a matrix in the layout that the CPU's matrix products want.

Without it oneDNN puts the matrix in that order at every call, which for a few rows takes longer than the product.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 64
"""Of inputs, that the layout is chosen for."""


def can_pack(device: torch.device) -> bool:
    """Whether this build of PyTorch has such products, for this device."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedMatrix:
    """Stands for a weight [O, I] until that changes; without gradients.

    Args:
        weight_OI: of a linear layer.
    """

    def __init__(self, weight_OI: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), ROWS)

    def linear(self, x_TI: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """As `torch.nn.functional.linear`."""
        y_TO: Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, self._weight, bias_O, "none", [], "")
        return y_TO
