"""FlatAdamW: torch's AdamW on a flat buffer, with clipping, a guard against NaN, and a saved form by name.

Of parameters in bfloat16 it keeps a float32 master: most steps are smaller than bfloat16's last bit, and would be lost.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from ludus.engine.torch.files import read_json, read_tensors, save_tensors
from ludus.engine.torch.flat import FlatParameters
from ludus.errors import ModelFolderError
from ludus.protocols import AdamW

TENSORS = "optimizer.safetensors"
STATE = "optimizer.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
CHUNK = 1 << 20


class FlatAdamW:
    """All parameters as one tensor: one fused kernel per step (decoupled weight decay, arXiv 1711.05101).

    Args:
        flat: the parameters; their gradient buffer is made.
    """

    def __init__(self, flat: FlatParameters) -> None:
        self._flat = flat
        exact = flat.values_N.dtype == torch.float32
        self.master_N = flat.values_N if exact else flat.values_N.float()
        """The weights that are stepped, in float32."""
        self._parameter = nn.Parameter(self.master_N)
        self._parameter.grad = flat.zero_gradients()
        self._optimizer = torch.optim.AdamW([self._parameter], fused=True)

    def step(self, settings: AdamW, *, finite: bool) -> dict[str, float]:
        """Clip, apply and clear the gradient.

        Args:
            settings: of this step.
            finite: False drops the gradient, because a loss was NaN or infinite.

        Returns:
            grad_norm (before clipping), lr, skipped (1.0: the gradient was dropped), update_norm_ratio (norm of the
            change over norm of the weights).
        """
        gradients_N = self._flat.gradients_N
        assert gradients_N is not None
        grad_norm = float(torch.linalg.vector_norm(gradients_N))
        skipped = not (finite and math.isfinite(grad_norm))
        ratio = 0.0
        if not skipped:
            if grad_norm > settings.max_grad_norm:
                gradients_N.mul_(settings.max_grad_norm / grad_norm)
            self._optimizer.param_groups[0].update(
                lr=settings.lr,
                betas=(settings.beta1, settings.beta2),
                eps=settings.eps,
                weight_decay=settings.weight_decay,
            )
            self._optimizer.step()
            self.publish()
            ratio = self._update_norm(settings) / max(float(torch.linalg.vector_norm(self.master_N)), 1e-30)
        gradients_N.zero_()
        return {"grad_norm": grad_norm, "lr": settings.lr, "skipped": float(skipped), "update_norm_ratio": ratio}

    def publish(self) -> None:
        """Round the master to the parameters that the decoder computes with."""
        if self.master_N is not self._flat.values_N:
            self._flat.values_N.copy_(self.master_N)

    def masters(self) -> dict[str, Tensor]:
        """The float32 weights by parameter name."""
        return dict(self._flat.views(self.master_N))

    def clear_gradients(self) -> None:
        """Drop what was accumulated."""
        self._flat.zero_gradients()

    def forget(self) -> None:
        """Begin again: the moments of one loss say nothing about another's."""
        self._optimizer.state.clear()
        self.clear_gradients()

    def save(self, folder: Path) -> None:
        """Write the moments by parameter name, and the number of steps."""
        state = self._optimizer.state.get(self._parameter, {})
        tensors = {
            f"{name}.{moment}": view
            for moment in MOMENTS
            if moment in state
            for name, view in self._flat.views(state[moment])
        }
        save_tensors(tensors, folder / TENSORS)
        steps = int(state["step"].item()) if "step" in state else 0
        (folder / STATE).write_text(json.dumps({"optimizer": "adamw", "steps": steps}) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from saved moments. Raises ModelFolderError."""
        steps = read_json(folder / STATE).get("steps")
        if not isinstance(steps, int):
            raise ModelFolderError(f"{folder / STATE}: expected a whole number under 'steps', got {steps!r}")
        state: dict[str, Tensor] = {moment: torch.zeros_like(self.master_N) for moment in MOMENTS}
        targets = {f"{name}.{m}": view for m in MOMENTS for name, view in self._flat.views(state[m])}
        found = set()
        for name, tensor in read_tensors(folder / TENSORS):
            if name not in targets or targets[name].shape != tensor.shape:
                raise ModelFolderError(
                    f"{folder / TENSORS}: tensor {name!r} of shape {list(tensor.shape)} does not belong to this model"
                )
            targets[name].copy_(tensor)
            found.add(name)
        if steps and found != set(targets):
            absent = min(set(targets) - found)
            raise ModelFolderError(f"{folder / TENSORS}: tensor {absent!r} is missing")
        self._optimizer.state.clear()
        if steps:
            state["step"] = torch.tensor(float(steps), device=self.master_N.device)
            self._optimizer.state[self._parameter] = state
        self.clear_gradients()

    def _update_norm(self, settings: AdamW) -> float:
        """Norm of the step just made, recomputed from the moments in chunks: no copy of the weights is needed."""
        state = self._optimizer.state[self._parameter]
        steps = int(state["step"].item())
        mean_scale = 1 / (1 - settings.beta1**steps)
        square_scale = 1 / (1 - settings.beta2**steps)
        total = torch.zeros((), device=self.master_N.device)
        pieces = (buffer.split(CHUNK) for buffer in (state["exp_avg"], state["exp_avg_sq"], self.master_N))
        for mean_C, square_C, value_C in zip(*pieces, strict=True):
            step_C = (mean_C * mean_scale) / ((square_C * square_scale).sqrt_().add_(settings.eps))
            step_C.add_(value_C, alpha=settings.weight_decay)
            total += step_C.square_().sum()
        return settings.lr * math.sqrt(float(total))
