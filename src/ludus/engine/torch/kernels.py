"""Kernels: the operators of sampling on a CPU, in C (`kernels.c`).

PyTorch's own take about ten calls for a norm and copy the whole cache for attention in bfloat16. Calls give up the
interpreter lock. No gradients.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from ludus.engine.torch.build import kernel_library

_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS = {
    "rms_norm": (_P, _P, _I, _P, _I, _I, _F),
    "swiglu": (_P, _P, _I, _I),
    "rotate": (_P, _P, _I, _P, _F, _P, _P, _I, _I, _I),
    "store": (_P, _P, _I, _P, _P, _I, _I, _I, _I),
    "attend": (_P, _P, _I, _P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _F),
    "logits": (_P, _P, _P, _I, _I, _I),
    "draw": (_P, _P, _P, _P, _P, _I, _I),
}
FEW_ROWS = 2
"""Hidden states up to which `logits` beats a matrix product."""
DEFINES: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.bfloat16: ("BF16",)}


def load_kernels(device: torch.device, dtype: torch.dtype) -> Kernels | None:
    """Those for a decoder's activations; None where there are none."""
    if device.type != "cpu" or dtype not in DEFINES:
        return None
    library = kernel_library(*DEFINES[dtype])
    return None if library is None else Kernels(library, dtype)


class Kernels:
    """See `Operators` for what a layer takes from here, and below for what attention and the draw do.

    Args:
        library: compiled for the type.
        dtype: of all tensors, but for what is said to be float32.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._dtype = dtype
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
        self._library = library

    def rms_norm(self, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """See `Operators`."""
        x_TD = self._rows(x_TD)
        rows, size = x_TD.shape
        out_TD = x_TD.new_empty(rows, size)
        self._library.rms_norm(out_TD.data_ptr(), x_TD.data_ptr(), x_TD.stride(0), weight_D.data_ptr(), rows, size, eps)
        return out_TD

    def rotate(self, x_THD: Tensor, scale_HD: Tensor | None, eps: float, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
        """See `Operators`."""
        x_THD = self._rows(x_THD)
        out_THD = x_THD.new_empty(x_THD.shape)
        scale = None if scale_HD is None else scale_HD.data_ptr()
        self._library.rotate(
            out_THD.data_ptr(), x_THD.data_ptr(), x_THD.stride(0), scale, eps, cos_T1D.data_ptr(), sin_T1D.data_ptr(),
            *x_THD.shape,
        )  # fmt: skip
        return out_THD

    def swiglu(self, gate_up_TF: Tensor) -> Tensor:
        """See `Operators`."""
        rows, width = gate_up_TF.shape
        out_TF = gate_up_TF.new_empty(rows, width // 2)
        self._library.swiglu(out_TF.data_ptr(), self._rows(gate_up_TF).data_ptr(), rows, width // 2)
        return out_TF

    def store(self, cached: Tensor, new_TKD: Tensor, slots_T: Tensor, positions_T: Tensor) -> None:
        """Write new keys or values into a cache [slots, K, length, D]."""
        new_TKD = self._rows(new_TKD)
        self._library.store(
            cached.data_ptr(), new_TKD.data_ptr(), new_TKD.stride(0), slots_T.data_ptr(), positions_T.data_ptr(),
            *new_TKD.shape[:2], *cached.shape[2:],
        )  # fmt: skip

    def attend(
        self, q_THD: Tensor, keys: Tensor, values: Tensor, slots_T: Tensor, positions_T: Tensor, window: int | None
    ) -> Tensor:
        """Attention of new tokens, each to its slot's positions up to its own, or to the last `window` of those.

        Args:
            q_THD: their queries.
            keys: of the cache, [slots, K, length, D], with those of the new tokens; likewise `values`.
            slots_T: int64.
            positions_T: int64.
            window: None is all.
        """
        q_THD = self._rows(q_THD)
        rows, num_queries, size = q_THD.shape
        out_THD = q_THD.new_empty(q_THD.shape)
        self._library.attend(
            out_THD.data_ptr(), q_THD.data_ptr(), q_THD.stride(0), keys.data_ptr(), values.data_ptr(),
            slots_T.data_ptr(), positions_T.data_ptr(), rows, num_queries, *keys.shape[1:], window or 0, size**-0.5,
        )  # fmt: skip
        return out_THD

    def logits(self, hidden_TD: Tensor, weight_VD: Tensor) -> Tensor:
        """Products in float32 with a head of the kernels' type, for at most FEW_ROWS states."""
        rows, size = hidden_TD.shape
        x_TD = self._rows(hidden_TD).float().contiguous()
        out_TV = torch.empty(rows, len(weight_VD))
        self._library.logits(out_TV.data_ptr(), x_TD.data_ptr(), weight_VD.data_ptr(), rows, len(weight_VD), size)
        return out_TV

    def draw(self, logits_BV: Tensor, temperatures: Sequence[float], uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities, [B] each, by inverse CDF; greedy ones at a temperature of 0.

        Args:
            logits_BV: float32; overwritten.
            temperatures: one a row.
            uniforms_B: float32, in [0, 1).
        """
        rows, size = logits_BV.shape
        temperatures_B = torch.tensor(temperatures, dtype=torch.float32)
        tokens_B, logprobs_B = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
        self._library.draw(
            tokens_B.data_ptr(), logprobs_B.data_ptr(), logits_BV.data_ptr(), temperatures_B.data_ptr(),
            uniforms_B.data_ptr(), rows, size,
        )  # fmt: skip
        return tokens_B, logprobs_B

    def _rows(self, x: Tensor) -> Tensor:
        """A tensor whose first dimension alone may have gaps."""
        if x.dtype != self._dtype:
            raise TypeError(f"kernels for {self._dtype} got {x.dtype}")
        return x if x[0].is_contiguous() else x.contiguous()
