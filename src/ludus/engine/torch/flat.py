"""FlatParameters: all parameters of a module as views into one buffer, and their gradients, in float32, into another.

Why: projections that read the same input (q, k, v; gate, up) lie side by side, so one matrix product serves them
without a copy that could go stale; the optimiser is one kernel over one tensor; the gradient norm is one reduction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

ALIGNMENT = 16
"""Elements; vector instructions are fastest, and equal to the last bit between processes, on aligned rows."""


class FlatParameters:
    """Moves a module's parameters (on any device, "meta" included) into one buffer.

    Args:
        module: its parameters are replaced by views; their values are undefined afterwards.
        fused: groups of parameter names that must lie side by side, e.g. the weights of q, k and v of one layer.
        device: where the buffer lives.
        dtype: of the buffer.
    """

    def __init__(
        self, module: nn.Module, fused: Sequence[tuple[str, ...]], device: torch.device, dtype: torch.dtype
    ) -> None:
        shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self._spans: dict[str, tuple[int, torch.Size]] = {}
        leader = {name: group for group in fused for name in group}
        end = 0
        for name in shapes:
            if name in self._spans:
                continue
            end = -(-end // ALIGNMENT) * ALIGNMENT
            for member in leader.get(name, (name,)):
                self._spans[member] = (end, shapes[member])
                end += shapes[member].numel()
        self.values_N = torch.zeros(end, device=device, dtype=dtype)
        self.gradients_N: Tensor | None = None
        self._leaves: list[tuple[nn.Parameter, int]] = []
        for name, (offset, shape) in self._spans.items():
            path, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(path), leaf, self._leaf(offset, shape))

    def fuse(self, group: Sequence[str]) -> nn.Parameter:
        """One leaf over a group of parameters, joined along dimension 0; it shares their values and gradients."""
        offset, first = self._spans[group[0]]
        rows = sum(self._spans[name][1][0] for name in group)
        return self._leaf(offset, torch.Size([rows, *first[1:]]))

    def zero_gradients(self) -> Tensor:
        """Zero the gradient buffer, made at the first call; gradients of all leaves add up in it. Shape [N]."""
        if self.gradients_N is None:
            self.gradients_N = torch.zeros_like(self.values_N, dtype=torch.float32)
            for leaf, offset in self._leaves:
                gradient = self._part(self.gradients_N, leaf, offset)
                if leaf.dtype == torch.float32:
                    leaf.grad = gradient
                else:
                    leaf.register_post_accumulate_grad_hook(partial(_move, gradient))  # type: ignore[no-untyped-call]
        else:
            self.gradients_N.zero_()
        return self.gradients_N

    @property
    def leaves(self) -> list[nn.Parameter]:
        """What autograd differentiates by: every parameter and every fused group."""
        return [leaf for leaf, _ in self._leaves]

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients of `leaves`, in their order, to the buffer; None is of a leaf that was not used."""
        assert self.gradients_N is not None  # zero_gradients makes it
        for (leaf, offset), gradient in zip(self._leaves, gradients, strict=True):
            if gradient is not None:
                self._part(self.gradients_N, leaf, offset).add_(gradient)

    def freeze(self) -> None:
        """Differentiate by none of the parameters from now on."""
        for leaf in self.leaves:
            leaf.requires_grad_(False)

    def views(self, buffer_N: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The parameters' parts of any buffer of this layout (values, gradients, moments), by name."""
        for name, (offset, shape) in self._spans.items():
            yield name, buffer_N[offset : offset + shape.numel()].view(shape)

    @staticmethod
    def _part(buffer_N: Tensor, leaf: Tensor, offset: int) -> Tensor:
        return buffer_N[offset : offset + leaf.numel()].view_as(leaf)

    def _leaf(self, offset: int, shape: torch.Size) -> nn.Parameter:
        leaf = nn.Parameter(self.values_N[offset : offset + shape.numel()].view(shape))
        self._leaves.append((leaf, offset))
        return leaf


def _move(total: Tensor, leaf: Tensor) -> None:
    """Add a leaf's fresh gradient to the float32 total, and free it."""
    if leaf.grad is not None:
        total.add_(leaf.grad)
        leaf.grad = None
