"""The output head in training: log-probabilities and entropies, with a bound on the logits that exist at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ludus.engine.torch.decoder import Decoder


def head(
    decoder: Decoder, hidden_PD: Tensor, targets_P: Tensor, temperatures_P: Tensor | None, max_rows: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the targets and, without gradient, entropies in nats; shape [P] each.

    Args:
        decoder: whose head.
        hidden_PD: states before the targets.
        targets_P: token ids.
        temperatures_P: logits are divided by them; None is 1.
        max_rows: rows of logits kept at once; beyond, they are computed in chunks, and again in the backward.
    """
    if len(hidden_PD) <= max_rows:
        return _head(decoder, hidden_PD, targets_P, temperatures_P)
    chunks = [slice(i, i + max_rows) for i in range(0, len(hidden_PD), max_rows)]
    pieces = [
        checkpoint(
            _head,
            decoder,
            hidden_PD[rows],
            targets_P[rows],
            None if temperatures_P is None else temperatures_P[rows],
            use_reentrant=False,
        )
        for rows in chunks
    ]
    return torch.cat([logprobs for logprobs, _ in pieces]), torch.cat([entropies for _, entropies in pieces])


def _head(
    decoder: Decoder, hidden_PD: Tensor, targets_P: Tensor, temperatures_P: Tensor | None
) -> tuple[Tensor, Tensor]:
    logits_PV = decoder.logits(hidden_PD)
    if temperatures_P is not None:
        logits_PV = logits_PV / temperatures_P[:, None]
    logprobs_PV = logits_PV.log_softmax(-1)
    with torch.no_grad():
        entropies_P = -(logprobs_PV.exp() * logprobs_PV).sum(-1)
    return logprobs_PV.gather(1, targets_P[:, None])[:, 0], entropies_P
