"""Draw one token per request by inverse CDF, for a whole batch at once.

Each draw uses one uniform number that depends on (seed, position in the reply) alone, not on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ludus.engine.torch.kernels import Kernels
from ludus.types import Sampling


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1), one per (seed, position): SplitMix64 (Steele, Lea, Flood 2014), top 23 bits.

    23 bits keep u * total below total in float32, so that no token of probability 0 is ever drawn.
    """
    seeds_B, positions_B = (np.asarray(values, dtype=np.uint64) for values in (seeds, positions))
    bits_B = _mix(_mix(seeds_B) + (positions_B + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return (bits_B >> np.uint64(41)).astype(np.float32) * np.float32(2.0**-23)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw(
    logits_BV: Tensor, samplings: Sequence[Sampling], uniforms_B: Tensor, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B] under the distribution drawn from.

    Temperature, then top-k, then top-p. Greedy requests take the most probable token; its log-probability is the one at
    temperature 1.

    Args:
        logits_BV: float32; overwritten.
        samplings: settings of each request.
        uniforms_B: from `uniforms`, on the device of the logits.
        kernels: used where no request asks for top-k or top-p.
    """
    if kernels is not None and not any(sampling.truncated for sampling in samplings):
        return kernels.draw(logits_BV, [sampling.temperature for sampling in samplings], uniforms_B)
    device = logits_BV.device
    temperatures = [sampling.temperature or 1.0 for sampling in samplings]
    if any(temperature != 1.0 for temperature in temperatures):
        logits_BV /= torch.tensor(temperatures, device=device)[:, None]
    logprobs_BV = logits_BV.log_softmax(-1)
    truncated = [i for i, sampling in enumerate(samplings) if sampling.truncated and sampling.temperature]
    if truncated:
        logprobs_BV[truncated] = truncate(
            logprobs_BV[truncated],
            torch.tensor([samplings[i].top_k for i in truncated], device=device),
            torch.tensor([samplings[i].top_p for i in truncated], device=device),
        )
    cdf_BV = logprobs_BV.exp().cumsum(-1)
    tokens_B1 = torch.searchsorted(cdf_BV, uniforms_B[:, None] * cdf_BV[:, -1:], right=True)
    tokens_B1.clamp_(max=logits_BV.shape[1] - 1)  # NaN logits only; the caller sees their log-probability
    greedy = [i for i, sampling in enumerate(samplings) if not sampling.temperature]
    if greedy:
        # of the logits: two of them may be one log-probability, and then which is greater is lost
        tokens_B1[greedy] = logits_BV[greedy].argmax(-1, keepdim=True)
    return tokens_B1[:, 0], logprobs_BV.gather(1, tokens_B1)[:, 0]


def truncate(logprobs_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> Tensor:
    """Renormalised log-probabilities of the kept tokens, -inf elsewhere.

    Kept are the `top_k` most probable (0: all), and of those, renormalised, the fewest whose mass reaches `top_p`.
    Of equally probable tokens the lower ids are kept.
    """
    sorted_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True, stable=True)
    ranks_V = torch.arange(logprobs_BV.shape[1], device=logprobs_BV.device)
    beyond_BV = (ranks_V >= top_k_B[:, None]) & (top_k_B[:, None] > 0)
    sorted_BV = sorted_BV.masked_fill(beyond_BV, float("-inf")).log_softmax(-1)
    probs_BV = sorted_BV.exp()
    # mass *before* each token, so that the one that reaches top_p stays
    beyond_BV |= (probs_BV.cumsum(-1) - probs_BV >= top_p_B[:, None]) & (top_p_B[:, None] < 1)
    sorted_BV = sorted_BV.masked_fill(beyond_BV, float("-inf")).log_softmax(-1)
    return torch.empty_like(sorted_BV).scatter_(1, order_BV, sorted_BV)
