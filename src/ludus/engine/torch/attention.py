"""Attention in training: which packed tokens see which.

Segments lie end to end; only inside attention are they padded, in buckets of similar length, because PyTorch's fused
kernels want rectangles. `PackedAttention` is for sequences that see only themselves; `ContinuedAttention` is for those
that continue a shared prompt. Sampling's counterpart, over a key-value cache, is `cached.py`.
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
class Segment:
    """Packed tokens [start, start + length): each sees those before it in the segment, and all of the context's."""

    start: int
    length: int
    context_start: int = 0
    context_length: int = 0


def attention_over(
    segments: Sequence[Segment], device: torch.device | str = "cpu"
) -> PackedAttention | ContinuedAttention:
    """The attention for segments that follow each other."""
    if any(segment.context_length for segment in segments):
        return ContinuedAttention(segments, device)
    return PackedAttention([segment.length for segment in segments], device)


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

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, window: int | None) -> Tensor:
        outputs = []
        for bucket in self._buckets:
            q, k, v = (_pad(x[bucket.start : bucket.end], bucket) for x in (q_THD, k_TKD, v_TKD))
            sees = None
            if window is not None and window < bucket.num_columns:
                columns = torch.arange(bucket.num_columns, device=q.device)
                sees = _within(columns, columns, window)
            out = _attend(q, k, v, sees).transpose(1, 2)
            flat = out.reshape(bucket.num_rows * bucket.num_columns, *out.shape[2:])
            outputs.append(flat if bucket.places is None else flat[bucket.places])
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


@dataclass(frozen=True)
class _Rectangle:
    """Segments of similar shape: B rows of Q queries, over C context columns and Q own ones, all right-padded."""

    queries_BQ: Tensor
    """Index of each in the packed tokens; 0 where there is none."""
    keys_BK: Tensor
    """Likewise of context and own columns, K = C + Q."""
    sees_B1QK: Tensor | None
    """None where there is no context: causal."""
    positions_BK: Tensor
    """Of the keys in their sequences; the last Q are the queries'."""
    real_N: Tensor
    """Of the B * Q queries, those that are there."""

    def sees(self, window: int | None) -> Tensor | None:
        """Which query sees which key, [B, 1, Q, K]; None is causal."""
        num_queries = self.queries_BQ.shape[1]
        if window is None or window >= int(self.positions_BK.max()) + 1:
            return self.sees_B1QK
        within_B1QK = _within(self.positions_BK[:, -num_queries:], self.positions_BK, window)[:, None]
        return within_B1QK if self.sees_B1QK is None else within_B1QK & self.sees_B1QK


class ContinuedAttention:
    """Causal attention of segments to themselves and to a context elsewhere in the same packed tokens.

    Args:
        segments: they follow each other and cover all tokens; a context is (part of) another segment without one.
        device: of the tensors to come.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device | str = "cpu") -> None:
        rows = sorted(segments, key=lambda row: (row.context_length, row.length))
        self._rectangles = [_rectangle(group, torch.device(device)) for group in _alike(rows)]
        order = torch.cat([r.queries_BQ.flatten()[r.real_N] for r in self._rectangles])
        self._places_T = torch.empty_like(order)
        self._places_T[order] = torch.arange(len(order), device=order.device)

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, window: int | None) -> Tensor:
        outputs = []
        for rectangle in self._rectangles:
            q = _gather(q_THD, rectangle.queries_BQ)
            k, v = _gather(k_TKD, rectangle.keys_BK), _gather(v_TKD, rectangle.keys_BK)
            sees = rectangle.sees(window)
            out = _attend(q, k, v, sees)
            outputs.append(out.transpose(1, 2).flatten(0, 1)[rectangle.real_N])
        return torch.cat(outputs)[self._places_T]


def _attend(q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None) -> Tensor:
    """Fused attention [B, H, Q, D]; causal where nothing says who sees whom."""
    dtype = q.dtype
    if q.device.type == "cpu" and dtype != torch.float32:  # short backward passes take a third of the time
        q, k, v = q.float(), k.float(), v.float()
    return F.scaled_dot_product_attention(q, k, v, sees, is_causal=sees is None, enable_gqa=True).to(dtype)


def _within(queries_Q: Tensor, keys_K: Tensor, window: int) -> Tensor:
    """Whether each query position sees each key position: not later, and less than a window before. [..., Q, K]"""
    distance_QK = queries_Q[..., :, None] - keys_K[..., None, :]
    return (distance_QK >= 0) & (distance_QK < window)


def _alike(rows: Sequence[Segment]) -> list[list[Segment]]:
    """Neighbours whose rectangle holds at most a share MAX_PADDING of padding; with a context or all without."""
    groups: list[list[Segment]] = []
    for row in rows:
        if groups:
            members = [*groups[-1], row]
            columns = max(m.context_length for m in members) + max(m.length for m in members)
            keys = sum(m.context_length + m.length for m in members)
            mixed = bool(groups[-1][0].context_length) != bool(row.context_length)
            if not mixed and keys >= (1 - MAX_PADDING) * columns * len(members):
                groups[-1].append(row)
                continue
        groups.append([row])
    return groups


def _rectangle(rows: Sequence[Segment], device: torch.device) -> _Rectangle:
    def ranges(starts: list[int], lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Indices [B, longest] counted up from the starts, and which of them are there."""
        columns_L = torch.arange(max(lengths))
        there_BL = columns_L < torch.tensor(lengths)[:, None]
        return (torch.tensor(starts)[:, None] + columns_L) * there_BL, there_BL

    queries_BQ, there_BQ = ranges([row.start for row in rows], [row.length for row in rows])
    contexts_BC, seen_BC = ranges([row.context_start for row in rows], [row.context_length for row in rows])
    size = queries_BQ.shape[1]
    sees_B1QK = None
    if contexts_BC.shape[1]:
        causal_QQ = torch.ones(size, size, dtype=torch.bool).tril()
        sees_BQC, sees_BQQ = seen_BC[:, None].expand(-1, size, -1), causal_QQ.expand(len(rows), -1, -1)
        sees_B1QK = torch.cat((sees_BQC, sees_BQQ), dim=2)[:, None].to(device)
    context_lengths_B1 = torch.tensor([row.context_length for row in rows])[:, None]
    own_BQ = context_lengths_B1 + torch.arange(size)
    positions_BC = torch.arange(contexts_BC.shape[1]).expand(len(rows), -1)
    return _Rectangle(
        positions_BK=torch.cat((positions_BC, own_BQ), dim=1).to(device),
        queries_BQ=queries_BQ.to(device),
        keys_BK=torch.cat((contexts_BC, queries_BQ), dim=1).to(device),
        sees_B1QK=sees_B1QK,
        real_N=there_BQ.flatten().nonzero()[:, 0].to(device),
    )


def _gather(x_THD: Tensor, places_BL: Tensor) -> Tensor:
    """Packed [T, H, D] to [B, H, L, D]."""
    return x_THD.index_select(0, places_BL.flatten()).view(*places_BL.shape, *x_THD.shape[1:]).transpose(1, 2)


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
