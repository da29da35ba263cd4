"""Golden numbers for each loss, its gradient and its metrics."""

from __future__ import annotations

import math

import pytest
import torch

from ludus.engine.torch.losses import LOSSES, find_loss, register_loss
from ludus.errors import UnknownName
from ludus.protocols import Loss

RATIOS = [0.5, 0.9, 1.0, 1.5, 6.0, 0.5, 6.0]
ADVANTAGES = [1.0, -2.0, 3.0, 1.0, 1.0, -1.0, -1.0]
WEIGHTS = [1.0, 0.5, 0.25, 1.0, 1.0, 1.0, 2.0]


def evaluate(name, **params):
    old = torch.full((len(RATIOS),), -1.0)
    logprobs = (old + torch.tensor(RATIOS).log()).requires_grad_()
    arrays = {"logprobs": old, "advantages": torch.tensor(ADVANTAGES), "weights": torch.tensor(WEIGHTS)}
    function, all_params = find_loss(Loss(name, params))
    loss, metrics = function(logprobs, arrays, all_params)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), gradient.tolist(), {key: value.item() for key, value in metrics.items()}


def weighted(values):
    return sum(w * v for w, v in zip(WEIGHTS, values, strict=True))


def test_cross_entropy():
    loss, gradient, metrics = evaluate("cross_entropy")
    assert loss == pytest.approx(-weighted([math.log(r) - 1 for r in RATIOS]), rel=1e-5)
    assert gradient == [-w for w in WEIGHTS]
    assert metrics == {}


def test_importance_sampling():
    loss, gradient, metrics = evaluate("importance_sampling")
    terms = [-r * a for r, a in zip(RATIOS, ADVANTAGES, strict=True)]
    assert loss == pytest.approx(weighted(terms), rel=1e-5)
    assert gradient == pytest.approx([w * t for w, t in zip(WEIGHTS, terms, strict=True)], rel=1e-5)
    assert metrics["ratio"] == pytest.approx(weighted(RATIOS), rel=1e-5)
    assert metrics["kl_old"] == pytest.approx(weighted([r - 1 - math.log(r) for r in RATIOS]), rel=1e-4)


def test_ppo_clips_by_the_sign_of_the_advantage():
    loss, gradient, metrics = evaluate("ppo")
    # min(rA, clip(r, .8, 1.28) A): .5, -1.8, 3, 1.28 (clipped), 1.28 (clipped), -.8 (clipped), -6
    terms = [-0.5, 1.8, -3.0, -1.28, -1.28, 0.8, 6.0]
    assert loss == pytest.approx(weighted(terms), rel=1e-5)
    alive = [1, 1, 1, 0, 0, 0, 1]
    expected = [w * t * k for w, t, k in zip(WEIGHTS, terms, alive, strict=True)]
    assert gradient == pytest.approx(expected, rel=1e-5)
    assert metrics["clip_fraction_positive"] == pytest.approx(2.0)
    assert metrics["clip_fraction_negative"] == pytest.approx(1.0)


def test_ppo_takes_its_bounds_and_dual_clip():
    loss, gradient, _ = evaluate("ppo", clip_low=0.6, clip_high=9.0, dual_clip=3.0)
    terms = [-0.5, 1.8, -3.0, -1.5, -6.0, 0.5, 3.0]  # only the last, -6, is floored at -3
    assert loss == pytest.approx(weighted(terms), rel=1e-5)
    assert gradient[-1] == 0.0


def test_cispo_caps_weights_but_loses_no_gradient():
    loss, gradient, metrics = evaluate("cispo")
    capped = [min(r, 5.0) for r in RATIOS]
    terms = [-c * a * (math.log(r) - 1) for c, a, r in zip(capped, ADVANTAGES, RATIOS, strict=True)]
    assert loss == pytest.approx(weighted(terms), rel=1e-4)
    expected = [-w * c * a for w, c, a in zip(WEIGHTS, capped, ADVANTAGES, strict=True)]
    assert gradient == pytest.approx(expected, rel=1e-5)
    assert metrics["clip_fraction_positive"] == pytest.approx(1.0)
    assert metrics["clip_fraction_negative"] == pytest.approx(2.0)


def test_unknown_loss_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'cispo'"):
        find_loss(Loss("cispoo"))


def test_unknown_parameter_names_the_nearest():
    with pytest.raises(UnknownName, match=r"parameter of the loss 'ppo'.*did you mean 'clip_high'"):
        find_loss(Loss("ppo", {"clip_hgih": 0.3}))
    with pytest.raises(UnknownName, match="parameter of the loss 'importance_sampling'"):
        find_loss(Loss("importance_sampling", {"clip_low": 0.3}))


def test_a_loss_of_ones_own():
    @register_loss("reinforce", scale=1.0)
    def reinforce(logprobs_T, arrays, params):
        return -params["scale"] * (arrays["weights"] * arrays["advantages"] * logprobs_T).sum(), {}

    try:
        assert evaluate("reinforce")[1] == pytest.approx(
            [-w * a for w, a in zip(WEIGHTS, ADVANTAGES, strict=True)], rel=1e-6
        )
    finally:
        del LOSSES["reinforce"]
