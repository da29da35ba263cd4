"""Packing: data to micro-batches of packed tokens, computing no position that nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ludus.errors import UsageError
from ludus.protocols import Datum


@dataclass(frozen=True)
class MicroBatch:
    """Datums packed end to end. P counts the predictions asked for, T the tokens that must be run for them."""

    data: list[int]
    """Which datums, in packed order."""
    lengths: list[int]
    """Tokens run, per datum: those before its last prediction."""
    tokens_T: Tensor
    positions_T: Tensor
    sources_P: Tensor
    """Index in T of the token that each prediction follows."""
    targets_P: Tensor
    temperatures_P: Tensor | None
    """None where all are 1."""
    arrays_P: dict[str, Tensor]
    counts: list[int]
    """Predictions per datum."""


def check(data: Sequence[Datum], vocab_size: int, context: int) -> None:
    """Raises UsageError for a datum that can't be trained on, naming it."""
    for index, datum in enumerate(data):
        length = len(datum.tokens_T)
        if not 0 < length <= context:
            raise UsageError(f"datum {index} has {length} tokens; expected 1 to {context} (the model's context)")
        if min(datum.tokens_T) < 0 or max(datum.tokens_T) >= vocab_size:
            raise UsageError(f"datum {index} has token ids outside of [0, {vocab_size})")
        for name, array in datum.arrays.items():
            if len(array) != length:
                raise UsageError(f"datum {index}: array {name!r} has {len(array)} entries for {length} tokens")
        if not datum.temperature >= 0:
            raise UsageError(f"datum {index}: temperature must be >= 0, got {datum.temperature}")


def predictions(datum: Datum, weighted: bool) -> list[int]:
    """Positions whose log-probability is asked for: all but the first, or those with a weight."""
    positions = range(1, len(datum.tokens_T))
    if not weighted:
        return list(positions)
    if "weights" not in datum.arrays:
        raise UsageError(f"a datum needs the array 'weights' to be trained on; it has: {', '.join(datum.arrays)}")
    weights = datum.arrays["weights"]
    return [t for t in positions if weights[t] != 0]


def micro_batches(
    data: Sequence[Datum], wanted: Sequence[Sequence[int]], max_tokens: int, device: torch.device
) -> list[MicroBatch]:
    """Pack datums of similar length together, longest last; datums of which nothing is wanted are left out.

    Args:
        data: what to pack.
        wanted: per datum, the positions to predict.
        max_tokens: most tokens of a micro-batch; a longer datum gets one of its own.
        device: of the tensors.
    """
    order = sorted((i for i in range(len(data)) if wanted[i]), key=lambda i: wanted[i][-1])
    batches: list[list[int]] = []
    room = 0
    for index in order:
        length = wanted[index][-1]
        if length > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(index)
        room -= length
    return [_pack(data, wanted, batch, device) for batch in batches]


def _pack(data: Sequence[Datum], wanted: Sequence[Sequence[int]], batch: list[int], device: torch.device) -> MicroBatch:
    tokens: list[int] = []
    positions: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    temperatures: list[float] = []
    arrays: dict[str, list[float]] = {name: [] for name in data[batch[0]].arrays}
    for index in batch:
        datum, asked = data[index], wanted[index]
        if datum.arrays.keys() != arrays.keys():
            raise UsageError(f"all data of a call need the same arrays; got {sorted(datum.arrays)}, {sorted(arrays)}")
        start, length = len(tokens), asked[-1]
        tokens += datum.tokens_T[:length]
        positions += range(length)
        sources += [start + t - 1 for t in asked]
        targets += [datum.tokens_T[t] for t in asked]
        temperatures += [datum.temperature or 1.0] * len(asked)  # greedy: log-probabilities at temperature 1
        for name, values in arrays.items():
            array = datum.arrays[name]
            values += [array[t] for t in asked]
    return MicroBatch(
        data=batch,
        lengths=[wanted[index][-1] for index in batch],
        tokens_T=torch.tensor(tokens, device=device),
        positions_T=torch.tensor(positions, device=device),
        sources_P=torch.tensor(sources, device=device),
        targets_P=torch.tensor(targets, device=device),
        temperatures_P=(
            torch.tensor(temperatures, dtype=torch.float32, device=device)
            if any(temperature != 1.0 for temperature in temperatures)
            else None
        ),
        arrays_P={name: torch.tensor(values, dtype=torch.float32, device=device) for name, values in arrays.items()},
        counts=[len(wanted[index]) for index in batch],
    )
