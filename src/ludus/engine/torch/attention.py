"""PackedAttention: which packed tokens see which in training, and the packing of token counts into micro-batches.

Sequences lie end to end; only inside attention are they padded, in buckets of similar length, because PyTorch's fused
kernels want rectangles. Sampling's counterpart, over a key-value cache, is `cached.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_PADDING = 0.25
"""Share of padding above which a bucket is split."""


@dataclass(frozen=True)
class _Bucket:
    """Neighbouring sequences padded to one rectangle of `num_rows` x `num_columns`."""

    start: int
    end: int
    num_rows: int
    num_columns: int
    places: Tensor | None
    """Of the packed tokens in the rectangle, [end - start]; None where they fill it in order."""


class PackedAttention:
    """Causal attention inside each of several sequences packed end to end.

    Args:
        lengths: of the sequences, in packed order; similar lengths side by side waste least.
        device: of the tensors to come.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._buckets = [_bucket(start, group, torch.device(device)) for start, group in _similar(lengths)]

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        outputs = []
        for bucket in self._buckets:
            q, k, v = (_pad(x[bucket.start : bucket.end], bucket) for x in (q_THD, k_TKD, v_TKD))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
            flat = out.reshape(bucket.num_rows * bucket.num_columns, *out.shape[2:])
            outputs.append(flat if bucket.places is None else flat[bucket.places])
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _similar(lengths: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Neighbours whose rectangle holds at most a share MAX_PADDING of padding: (first token, lengths) each."""
    groups: list[tuple[int, list[int]]] = []
    start = 0
    for length in lengths:
        if groups:
            members = [*groups[-1][1], length]
            if sum(members) >= (1 - MAX_PADDING) * max(members) * len(members):
                groups[-1][1].append(length)
                start += length
                continue
        groups.append((start, [length]))
        start += length
    return groups


def _bucket(start: int, lengths: Sequence[int], device: torch.device) -> _Bucket:
    rows, columns, total = len(lengths), max(lengths), sum(lengths)
    places = None
    if total != rows * columns:
        lengths_B = torch.tensor(lengths)
        shift_B = torch.arange(rows) * columns - (lengths_B.cumsum(0) - lengths_B)
        places = (torch.arange(total) + shift_B.repeat_interleave(lengths_B)).to(device)
    return _Bucket(start, start + total, rows, columns, places)


def _pad(x_THD: Tensor, bucket: _Bucket) -> Tensor:
    """Packed [T, H, D] to a right-padded [B, H, L, D]."""
    shape = (bucket.num_rows, bucket.num_columns, *x_THD.shape[1:])
    if bucket.places is None:
        return x_THD.reshape(shape).transpose(1, 2)
    padded = x_THD.new_zeros(shape[0] * shape[1], *shape[2:]).index_copy(0, bucket.places, x_THD)
    return padded.view(shape).transpose(1, 2)
