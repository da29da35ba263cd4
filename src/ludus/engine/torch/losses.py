"""Policy losses as pure functions of per-token arrays.

A loss sums over tokens, each weighted by the array `weights`; normalisers ride in the weights, so no split of the batch
changes a result. Ratios are of the policy to whoever sampled: r = exp(logprobs - arrays["logprobs"]). Your own loss:

    @register_loss("reinforce", scale=1.0)                # its parameters, with their defaults
    def reinforce(logprobs_T, arrays, params):
        return -params["scale"] * (arrays["weights"] * arrays["advantages"] * logprobs_T).sum(), {}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ludus.errors import UnknownName
from ludus.protocols import Loss

LossFn = Callable[[Tensor, Mapping[str, Tensor], Mapping[str, float]], tuple[Tensor, dict[str, Tensor]]]
"""(logprobs_T, arrays of shape [T], params) -> (summed loss, sums of metrics weighted by `weights`)."""


@dataclass(frozen=True)
class RegisteredLoss:
    """A loss and the parameters that it knows, with their defaults."""

    function: LossFn
    defaults: Mapping[str, float]


LOSSES: dict[str, RegisteredLoss] = {}


def register_loss(name: str, **defaults: float) -> Callable[[LossFn], LossFn]:
    """Make a loss known under a name; it is always called with a value for each of its parameters."""

    def register(function: LossFn) -> LossFn:
        LOSSES[name] = RegisteredLoss(function, defaults)
        return function

    return register


def find_loss(loss: Loss) -> tuple[LossFn, dict[str, float]]:
    """The function of a loss and all of its parameters. Raises UnknownName, for a parameter that it lacks too."""
    if loss.name not in LOSSES:
        raise UnknownName("loss", loss.name, LOSSES)
    known = LOSSES[loss.name]
    for name in loss.params:
        if name not in known.defaults:
            raise UnknownName(f"parameter of the loss {loss.name!r}", name, known.defaults)
    return known.function, {**known.defaults, **loss.params}


@register_loss("cross_entropy")
def cross_entropy(
    logprobs_T: Tensor, arrays: Mapping[str, Tensor], params: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """-log p: imitation."""
    return -(arrays["weights"] * logprobs_T).sum(), {}


@register_loss("importance_sampling")
def importance_sampling(
    logprobs_T: Tensor, arrays: Mapping[str, Tensor], params: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """-r A: the policy gradient, corrected for who sampled, without a trust region."""
    ratio_T = _ratio(logprobs_T, arrays)
    return _sum(-ratio_T * arrays["advantages"], arrays), _diagnostics(ratio_T, arrays)


@register_loss("ppo", clip_low=0.2, clip_high=0.28, dual_clip=math.inf)
def ppo(
    logprobs_T: Tensor, arrays: Mapping[str, Tensor], params: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) (PPO, arXiv 1707.06347, eq. 7; clip-higher: DAPO, 2503.14476).

    With a finite `dual_clip` c > 1 the loss of a token with A < 0 is at most -c A (arXiv 1912.09729, eq. 5).
    """
    low, high = 1 - params["clip_low"], 1 + params["clip_high"]
    advantages_T = arrays["advantages"]
    ratio_T = _ratio(logprobs_T, arrays)
    objective_T = torch.minimum(ratio_T * advantages_T, ratio_T.clamp(low, high) * advantages_T)
    if math.isfinite(params["dual_clip"]):
        floor_T = params["dual_clip"] * advantages_T
        objective_T = torch.where(advantages_T < 0, torch.maximum(objective_T, floor_T), objective_T)
    clipped_T = torch.where(advantages_T > 0, ratio_T > high, ratio_T < low)
    return _sum(-objective_T, arrays), _diagnostics(ratio_T, arrays, clipped_T)


@register_loss("cispo", eps_max=5.0)
def cispo(
    logprobs_T: Tensor, arrays: Mapping[str, Tensor], params: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """-sg(min(r, eps_max)) A log p (MiniMax-M1, arXiv 2506.13585): capped weights, but no token loses its gradient."""
    cap = params["eps_max"]
    ratio_T = _ratio(logprobs_T, arrays)
    loss_T = -ratio_T.detach().clamp(max=cap) * arrays["advantages"] * logprobs_T
    return _sum(loss_T, arrays), _diagnostics(ratio_T, arrays, ratio_T > cap)


def _ratio(logprobs_T: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
    return (logprobs_T - arrays["logprobs"]).exp()


def _sum(values_T: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
    return (arrays["weights"] * values_T).sum()


@torch.no_grad()
def _diagnostics(ratio_T: Tensor, arrays: Mapping[str, Tensor], clipped_T: Tensor | None = None) -> dict[str, Tensor]:
    """Weighted sums: ratio, KL(old, new) by k3 = r - 1 - log r, and clipped tokens by the sign of their advantage."""
    metrics = {"ratio": _sum(ratio_T, arrays), "kl_old": _sum(ratio_T - 1 - ratio_T.log(), arrays)}
    if clipped_T is not None:
        advantages_T = arrays["advantages"]
        metrics["clip_fraction_positive"] = _sum(clipped_T & (advantages_T > 0), arrays)
        metrics["clip_fraction_negative"] = _sum(clipped_T & (advantages_T < 0), arrays)
    return metrics
