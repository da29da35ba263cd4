"""Packing: data to micro-batches of packed tokens, computing no position twice and none that nobody asked for.

The rollouts of a group begin with the same prompt. It is packed once, and what each said after it is packed as a
continuation that sees it: a group of 8 with a long prompt costs little more than one rollout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ludus.engine.torch.attention import Segment
from ludus.errors import UsageError
from ludus.protocols import Datum

SHORTEST_SHARED = 12
"""Tokens; to run a shorter prompt again costs less than to attend to it from elsewhere."""


@dataclass(frozen=True)
class MicroBatch:
    """Datums packed end to end. P counts the predictions asked for, T the tokens that must be run for them."""

    data: list[int]
    """Which datums, in packed order."""
    segments: list[Segment]
    """Runs of packed tokens: whole datums, shared prompts, and what continues them."""
    tokens_T: Tensor
    positions_T: Tensor
    sources_P: Tensor
    """Index in T of the token that each prediction follows."""
    targets_P: Tensor
    temperatures_P: Tensor | None
    """None where all are 1."""
    arrays_P: dict[str, Tensor]
    routing_TN: Tensor | None
    """Experts to replay, -1 where a token chooses anew; None where none are known."""
    counts: list[int]
    """Predictions per datum."""


@dataclass(frozen=True)
class Family:
    """Datums that share their first `shared` tokens, none of which is predicted; 0 for one that shares nothing."""

    members: list[int]
    shared: int
    num_tokens: int
    """To be run for all of them."""
    longest: int
    """Tokens of the longest member, shared ones included."""


def check(data: Sequence[Datum], vocab_size: int, context: int, routing_width: int) -> None:
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
        if datum.routing and len(datum.routing) != 2 * routing_width * (length - 1):
            raise UsageError(
                f"datum {index}: {len(datum.routing)} bytes of routing for {length} tokens and {routing_width} experts each"
            )
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


def families(data: Sequence[Datum], wanted: Sequence[Sequence[int]], max_tokens: int) -> list[Family]:
    """Datums grouped by the prompt before their first prediction; those of which nothing is wanted are left out.

    Args:
        data: what to pack.
        wanted: per datum, the positions to predict.
        max_tokens: most tokens of a family of several; a prompt that more datums share is run again for the others.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    found: list[Family] = []
    for index, positions in enumerate(wanted):
        if positions and positions[0] >= SHORTEST_SHARED:
            by_prompt.setdefault(tuple(data[index].tokens_T[: positions[0]]), []).append(index)
        elif positions:
            found.append(Family([index], 0, positions[-1], positions[-1]))
    for prompt, members in by_prompt.items():
        room = max(1, max_tokens - len(prompt))
        lengths = [wanted[index][-1] - len(prompt) for index in members]
        rounds = math.ceil(sum(lengths) / room) or 1
        for part in (members[start::rounds] for start in range(rounds)):
            if not part:
                continue
            shared = len(prompt) if len(part) > 1 else 0
            longest = max(wanted[index][-1] for index in part)
            num_tokens = shared + sum(wanted[index][-1] - shared for index in part)
            found.append(Family(part, shared, num_tokens, longest))
    return found


def micro_batches(
    data: Sequence[Datum],
    wanted: Sequence[Sequence[int]],
    grouped: Sequence[Family],
    max_tokens: int,
    device: torch.device,
) -> list[MicroBatch]:
    """Pack families of similar length together, longest last.

    Args:
        data: what to pack.
        wanted: per datum, the positions to predict.
        grouped: the data's families.
        max_tokens: most tokens of a micro-batch; a longer family gets one of its own.
        device: of the tensors.
    """
    batches: list[list[Family]] = []
    room = 0
    for family in sorted(grouped, key=lambda family: family.longest):
        if family.num_tokens > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(family)
        room -= family.num_tokens
    return [_pack(data, wanted, batch, device) for batch in batches]


def _pack(
    data: Sequence[Datum], wanted: Sequence[Sequence[int]], batch: list[Family], device: torch.device
) -> MicroBatch:
    tokens: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    sources: list[int] = []
    targets: list[int] = []
    temperatures: list[float] = []
    members = [index for family in batch for index in family.members]
    arrays: dict[str, list[float]] = {name: [] for name in data[members[0]].arrays}

    def run(datum: Datum, first: int, last: int, context: int) -> None:
        """Pack tokens [first, last) of a datum; what they continue, if anything, begins at `context`."""
        if last > first:
            segments.append(Segment(len(tokens), last - first, context, first))
            if width:
                replayed.append(_routing(datum, first, last, width))
            tokens.extend(datum.tokens_T[first:last])
            positions.extend(range(first, last))

    replayed: list[NDArray[np.int16]] = []
    width = max(_width(data[index]) for index in members)

    for family in batch:
        shared, prompt = family.shared, len(tokens)
        run(data[family.members[0]], 0, shared, 0)
        for index in family.members:
            datum, asked, start = data[index], wanted[index], len(tokens)
            if datum.arrays.keys() != arrays.keys():
                raise UsageError(
                    f"all data of a call need the same arrays; got {sorted(datum.arrays)}, {sorted(arrays)}"
                )
            run(datum, shared, asked[-1], prompt)
            sources += [prompt + t - 1 if t <= shared else start + t - 1 - shared for t in asked]
            targets += [datum.tokens_T[t] for t in asked]
            temperatures += [datum.temperature or 1.0] * len(asked)  # greedy: log-probabilities at temperature 1
            for name, values in arrays.items():
                array = datum.arrays[name]
                values += [array[t] for t in asked]
    return MicroBatch(
        data=members,
        segments=segments,
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
        counts=[len(wanted[index]) for index in members],
        routing_TN=torch.from_numpy(np.concatenate(replayed)).to(device) if width else None,
    )


def _width(datum: Datum) -> int:
    """Experts that a token of it went to, in all layers; 0 where that is not known."""
    return len(datum.routing) // (2 * max(1, len(datum.tokens_T) - 1))


def _routing(datum: Datum, first: int, last: int, width: int) -> NDArray[np.int16]:
    """Experts of tokens [first, last), -1 for those beyond what is known."""
    known = np.frombuffer(datum.routing, "<i2").reshape(-1, width)[first:last]
    missing = np.full((last - first - len(known), width), -1, np.int16)
    return np.concatenate([known, missing])
