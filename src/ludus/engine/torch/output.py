"""OutputProjection: from hidden states to logits, in float32 and never rounded to less, whatever the model computes in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ludus.engine.torch.kernels import FEW_ROWS, Kernels
from ludus.engine.torch.packed import PackedMatrix


class OutputProjection:
    """Keeps copies of the weight in other forms, as they are wanted, until `changed`.

    Args:
        weight_VD: of the decoder's type; tied to the embeddings or not.
    """

    def __init__(self, weight_VD: Tensor) -> None:
        self._weight_VD = weight_VD
        self.kernels: Kernels | None = None
        self.packing = False
        """Whether to multiply with a packed copy, outside of training."""
        self._float32_VD: Tensor | None = None
        self._packed: PackedMatrix | None = None

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Logits [T, V]."""
        exact = self._weight_VD.dtype == torch.float32
        if not torch.is_grad_enabled():
            if self.kernels and not exact and len(hidden_TD) <= FEW_ROWS:
                return self.kernels.logits(hidden_TD, self._weight_VD)
            if self.packing:
                return self.pack().linear(hidden_TD.float())
        return F.linear(hidden_TD.float(), self._weight_VD if exact else self._widened())

    def pack(self) -> PackedMatrix:
        """The packed copy, made where it is not there."""
        if self._packed is None:
            self._packed = PackedMatrix(self._weight_VD.float())
        return self._packed

    def unpack(self) -> None:
        """Give back the packed copy's memory, until it is wanted again."""
        self._packed = None

    def changed(self) -> None:
        """The weight was changed."""
        self._packed, self._float32_VD = None, None

    def _widened(self) -> Tensor:
        """The weight in float32; a copy that is kept, but where gradients flow to the weight."""
        if torch.is_grad_enabled() and self._weight_VD.requires_grad:
            return self._weight_VD.float()
        if self._float32_VD is None:
            with torch.inference_mode(False):  # training behind an adapter differentiates through it, too
                self._float32_VD = self._weight_VD.detach().float()
        return self._float32_VD
