"""Drawing tokens: the right distribution and log-probabilities, and nothing but (seed, position) behind a draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ludus.engine.torch.draw import draw, truncate, uniforms
from ludus.types import Sampling

LOGITS = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])


def frequencies(sampling, n=20000):
    uniform = torch.from_numpy(uniforms(range(n), [0] * n))
    tokens, _ = draw(LOGITS.repeat(n, 1), [sampling] * n, uniform)
    return torch.bincount(tokens, minlength=5)


def test_uniforms_are_stable_across_versions():
    expected = [0.8833107948303223, 0.5957678556442261, 0.2629067897796631]
    assert uniforms([0, 1, 2**63], [0, 5, 1000]).tolist() == expected
    assert uniforms([7], [3]).tolist() == uniforms([1, 7, 9], [0, 3, 8])[1:2].tolist()


def test_uniforms_are_uniform_over_seeds_and_positions():
    for sample in (uniforms(range(20000), [0] * 20000), uniforms([5] * 20000, range(20000))):
        assert stats.kstest(sample, "uniform").pvalue > 1e-3
        assert sample.min() >= 0 and sample.max() < 1


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draws_follow_the_softmax(temperature):
    counts = frequencies(Sampling(temperature=temperature)).numpy()
    expected = (LOGITS / temperature).softmax(-1).numpy().astype(np.float64)
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3


def test_greedy_takes_the_most_probable_at_temperature_one():
    tokens, logprobs = draw(LOGITS[None].clone(), [Sampling(temperature=0)], torch.tensor([0.01]))
    assert tokens.tolist() == [2]
    assert logprobs.item() == pytest.approx(LOGITS.log_softmax(-1)[2].item())


def test_truncated_draws_stay_in_the_kept_set():
    assert frequencies(Sampling(top_k=2)).nonzero().flatten().tolist() == [1, 2]
    assert frequencies(Sampling(top_p=0.5)).nonzero().flatten().tolist() == [2]
    assert frequencies(Sampling(top_p=0.75)).nonzero().flatten().tolist() == [1, 2]


def test_each_row_has_its_own_settings():
    samplings = [Sampling(), Sampling(temperature=0), Sampling(top_k=1), Sampling(temperature=0.5)]
    tokens, logprobs = draw(LOGITS.repeat(4, 1), samplings, torch.full((4,), 0.999))
    assert tokens.tolist()[1:3] == [2, 2]
    assert logprobs[2].item() == 0.0
    assert logprobs[0].item() == pytest.approx(LOGITS.log_softmax(-1)[tokens[0]].item())
    assert logprobs[3].item() == pytest.approx((LOGITS / 0.5).log_softmax(-1)[tokens[3]].item(), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1.0),
)
def test_truncate_keeps_the_fewest_that_reach_top_p(logits, top_k, top_p):
    logprobs = torch.tensor(logits).log_softmax(-1)
    kept = truncate(logprobs[None], torch.tensor([top_k]), torch.tensor([top_p]))[0]
    assert kept.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    inside = kept > float("-inf")
    assert 1 <= inside.sum() <= (top_k or len(logits))
    assert logprobs[inside].min() >= logprobs[~inside].max() if (~inside).any() else True
    difference = (kept - logprobs)[inside]
    assert (difference - difference[0]).abs().max() < 1e-4  # only renormalised


@settings(max_examples=50, deadline=None)
@given(logits=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8), bits=st.integers(0, 2**23 - 1))
def test_no_token_of_probability_zero_is_drawn(logits, bits):
    _, logprobs = draw(torch.tensor([logits]), [Sampling()], torch.tensor([bits * 2.0**-23]))
    assert logprobs.exp().item() > 0
