"""Projection: linear layers of one input, computed as one, with what an adapter adds to them.

The layers are neighbours in the flat buffer, so nothing is copied that could go stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ludus.engine.torch.flat import FlatParameters
from ludus.engine.torch.packed import PackedMatrix

if TYPE_CHECKING:
    from ludus.engine.torch.lora import Added


class Projection:
    """Several `nn.Linear` children of a module as one.

    Args:
        module: their parent.
        path: its name in the decoder.
        names: of the children, in the order of the outputs.
    """

    def __init__(self, module: nn.Module, path: str, names: tuple[str, ...]) -> None:
        linears = [module.get_submodule(name) for name in names]
        self.paths = tuple(f"{path}.{name}" for name in names)
        self.inputs = int(linears[0].in_features)  # type: ignore[arg-type]
        self.outputs = tuple(int(linear.out_features) for linear in linears)  # type: ignore[arg-type]
        self.added: Added | None = None
        self.packing = False
        """Whether to multiply with a packed copy, outside of training."""
        self._packed: PackedMatrix | None = None
        self._has_bias = linears[0].bias is not None

    def groups(self) -> list[tuple[str, ...]]:
        """Names of parameters that must lie side by side."""
        kinds = ("weight", "bias") if self._has_bias else ("weight",)
        return [tuple(f"{path}.{kind}" for path in self.paths) for kind in kinds]

    def bind(self, flat: FlatParameters) -> None:
        """Take the joined parameters from the buffer."""
        weights, *biases = self.groups()
        self._weight = flat.fuse(weights)
        self._bias = flat.fuse(biases[0]) if biases else None

    def __call__(self, x_TD: Tensor, adapted_T1: Tensor | None) -> Tensor:
        """Outputs of all layers side by side, [T, sum of outputs]."""
        if self.packing and not torch.is_grad_enabled():
            y_TO = self.pack().linear(x_TD, self._bias)
        else:
            y_TO = F.linear(x_TD, self._weight, self._bias)
        return y_TO if self.added is None else y_TO + self.added(x_TD, adapted_T1)

    def pack(self) -> PackedMatrix:
        """The packed copy, made where it is not there."""
        if self._packed is None:
            self._packed = PackedMatrix(self._weight)
        return self._packed

    def unpack(self) -> None:
        """Forget the packed copy."""
        self._packed = None
